//! One source file, read as the walls need it: without comments, quoted texts and tests.

/// A source file of a crate.
pub struct Source {
    /// From the workspace's root, with `/`.
    pub path: String,
    /// As it stands on the disk.
    pub raw: String,
    // As long as `raw`, line for line: what is no code is blanks.
    code: String,
    // Modules declared as `#[cfg(test)] mod name;`.
    tests: Vec<String>,
    // Where the first `#[cfg(test)]` stands.
    tests_at: usize,
}

impl Source {
    pub fn new(path: String, raw: String) -> Self {
        let mut code = blank_what_is_no_code(&raw);
        let (tests, tests_at) = blank_tests(&mut code);
        Self { path, raw, code, tests, tests_at }
    }

    /// Lines before the first `#[cfg(test)]`.
    pub fn lines_before_tests(&self) -> usize {
        self.raw[..self.tests_at].lines().count()
    }

    /// Where the files of this file's `#[cfg(test)] mod name;` lie, without `.rs`.
    pub fn test_modules(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let home = if matches!(name, "mod" | "lib" | "main") { folder } else { stem };
        self.tests.iter().map(|module| format!("{home}/{module}")).collect()
    }

    /// Every place that names one of `names`, with its line: a path such as `std::fs` in the
    /// code, or in a `use` tree once that is spelled out.
    pub fn finds(&self, names: &[&str]) -> Vec<(usize, String)> {
        let mut found: Vec<(usize, String)> = Vec::new();
        for name in names {
            found.extend(places(&self.code, name).map(|at| (self.line(at), (*name).to_owned())));
        }
        for (at, path) in self.uses() {
            let named = names.iter().find(|name| {
                path.strip_prefix(**name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            });
            if let Some(name) = named {
                found.push((self.line(at), (*name).to_owned()));
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// The first-level modules of its own crate that the file names, with their lines.
    pub fn crate_modules(&self) -> Vec<(usize, String)> {
        let inline = places(&self.code, "crate").filter_map(|at| {
            let rest = self.code[at..].strip_prefix("crate::")?;
            let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
            Some((self.line(at), name))
        });
        let used = self.uses().into_iter().filter_map(|(at, path)| {
            let name = path.strip_prefix("crate::")?.split("::").next()?.to_owned();
            Some((self.line(at), name))
        });
        let mut found: Vec<_> = inline.chain(used).filter(|(_, name)| !name.is_empty()).collect();
        found.sort();
        found.dedup();
        found
    }

    /// Every path that a `use` brings in, spelled out, with the place of its `use`.
    fn uses(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for at in places(&self.code, "use") {
            let tree = self.code[at + 3..].split(';').next().unwrap_or_default();
            let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut paths = Vec::new();
            spell_out("", &tree, &mut paths);
            found.extend(paths.into_iter().map(|path| (at, path)));
        }
        found
    }

    fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `name` stands in `code` as a word or path of its own: `std::fs`, not `my_std::fsync`.
fn places<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(name).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// `a::{b, c::{d as e}}` is `a::b` and `a::c::d`.
fn spell_out(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    match tree.split_once('{') {
        None => {
            let path = tree.split(" as ").next().unwrap_or_default().trim();
            let whole = format!("{prefix}{path}").replace(' ', "");
            paths.push(whole.trim_end_matches("::self").to_owned());
        }
        Some((head, rest)) => {
            let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
            let prefix = format!("{prefix}{}", head.trim());
            for branch in split_at_top(inner) {
                spell_out(&prefix, branch, paths);
            }
        }
    }
}

/// Splits at the commas that are in no braces.
fn split_at_top(list: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let mut start = 0;
    let mut parts = Vec::new();
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

/// Blanks out comments and what stands in quotes; newlines stay, and so does every position.
fn blank_what_is_no_code(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = no_code_ends_at(bytes, at);
        if end > at {
            blank(&mut code[at..end]);
            at = end;
        } else {
            at += 1;
        }
    }
    String::from_utf8(code).expect("blanks are whole characters")
}

/// Where the comment or text that begins at `at` ends; `at` itself when none begins there.
fn no_code_ends_at(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return at + find(rest, b"\n").unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + block_comment(rest);
    }
    if !word_before && (rest.starts_with(b"r\"") || rest.starts_with(b"r#")) {
        return at + raw_text(&rest[1..]).map_or(0, |len| len + 1);
    }
    if !word_before && rest.starts_with(b"br") {
        return at + raw_text(&rest[2..]).map_or(0, |len| len + 2);
    }
    match rest[0] {
        b'"' => at + quoted(rest),
        b'\'' => at + character(rest),
        _ => at,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of `#"…"#` with any number of hashes; none when it is `r#name`.
fn raw_text(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let body = hashes + 1;
    Some(find(&rest[body..], &close).map_or(rest.len(), |len| body + len + close.len()))
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character in quotes; 0 when the quote begins a lifetime.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        // From the fourth byte on: the third may be an escaped quote.
        return rest.get(3..).and_then(|rest| find(rest, b"'")).map_or(0, |len| len + 4);
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)]);
    let valid = text.map_or_else(|error| error.valid_up_to(), str::len);
    let first = std::str::from_utf8(&rest[1..=valid]).ok().and_then(|text| text.chars().next());
    let len = first.map_or(0, char::len_utf8);
    if len > 0 && rest.get(1 + len) == Some(&b'\'') { len + 2 } else { 0 }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// Blanks out every item under `#[cfg(test)]`. Gives the names of its modules that are files of
/// their own, and where the first stands.
fn blank_tests(code: &mut String) -> (Vec<String>, usize) {
    const MARK: &str = "#[cfg(test)]";
    let mut bytes = code.clone().into_bytes();
    let mut files = Vec::new();
    let mut first = code.len();
    for (at, _) in code.match_indices(MARK) {
        first = first.min(at);
        let item = &code[at + MARK.len()..];
        let opens = item.find('{').unwrap_or(item.len());
        let ends = item.find(';').unwrap_or(item.len());
        let len = if ends < opens {
            if let Some(name) = item[..ends].trim().rsplit_once("mod ") {
                files.push(name.1.trim().to_owned());
            }
            ends
        } else {
            opens + braces(&item[opens..])
        };
        let end = (at + MARK.len() + len).min(bytes.len());
        blank(&mut bytes[at..end]);
    }
    *code = String::from_utf8(bytes).expect("blanks are whole characters");
    (files, first)
}

/// The length of a text that begins with `{` up to the brace that closes it.
fn braces(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

#[test]
fn comments_texts_and_tests_are_no_code() {
    let raw = r##"//! std::fs
/* std::fs /* std::fs */ std::fs */
const A: &str = "std::fs \" std::fs";
const B: &str = r#"std::fs " std::fs"#;
const C: [char; 3] = ['"', '\'', 'é'];
fn f<'a>(x: &'a str) -> &'a str { x } // std::fs
#[cfg(test)]
mod tests { use std::fs; fn g() { fs::read("x"); } }
#[cfg(test)]
mod story;
fn last() { std::fs::read("x"); }
"##;
    let source = Source::new("a/src/b.rs".to_owned(), raw.to_owned());
    assert_eq!(source.finds(&["std::fs"]), [(11, "std::fs".to_owned())]);
    assert_eq!(source.test_modules(), ["a/src/b/story"]);
    assert_eq!(source.lines_before_tests(), 6);
}

#[test]
fn use_trees_are_spelled_out() {
    let raw = "use std::{io, fs::{self, File}, sync::Arc as A};\nuse crate::{fetch::X, admin};\n";
    let source = Source::new("broker/src/x.rs".to_owned(), raw.to_owned());
    assert_eq!(source.finds(&["std::fs"]), [(1, "std::fs".to_owned())]);
    assert_eq!(source.finds(&["std::env", "std::f", "Arc"]).len(), 1);
    let modules: Vec<_> = source.crate_modules().into_iter().map(|(_, name)| name).collect();
    assert_eq!(modules, ["admin", "fetch"]);
}
