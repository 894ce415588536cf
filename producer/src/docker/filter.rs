//! Which containers are watched.
//!
//! A container is watched when no `--include` is given or one of them fits, no `--exclude` fits,
//! and its label `aklight.enable` does not say `false`. A pattern is of a name (`name=web-*`, or
//! just `web-*`), of an image (`image=nginx*`) or of a label (`label=key`, `label=key=value`);
//! `*` stands for any text.

use std::collections::BTreeMap;
use std::str::FromStr;

/// The label with which a container opts out.
const ENABLE: &str = "aklight.enable";

/// What is asked of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Of its name.
    Name(String),
    /// Of its image.
    Image(String),
    /// Of a label's name, and of what it says.
    Label(String, Option<String>),
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pattern = match text.split_once('=') {
            None => Self::Name(text.to_owned()),
            Some(("name", name)) => Self::Name(name.to_owned()),
            Some(("image", image)) => Self::Image(image.to_owned()),
            Some(("label", label)) => match label.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(label.to_owned(), None),
            },
            Some((other, _)) => {
                return Err(format!(
                    "containers are told by name=…, image=… or label=KEY[=VALUE], not by '{other}'"
                ));
            }
        };
        match &pattern {
            Self::Name(glob) | Self::Image(glob) | Self::Label(glob, _) if glob.is_empty() => {
                Err("a pattern of nothing fits nothing: write web-*, image=nginx* or label=KEY"
                    .to_owned())
            }
            _ => Ok(pattern),
        }
    }
}

/// The choice of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these must fit, where there are any.
    pub include: Vec<Pattern>,
    /// None of these may fit.
    pub exclude: Vec<Pattern>,
}

impl Filter {
    /// Whether a container is watched.
    #[must_use]
    pub fn takes(&self, name: &str, image: &str, labels: &BTreeMap<String, String>) -> bool {
        let fits = |pattern: &Pattern| match pattern {
            Pattern::Name(glob) => fits(glob, name),
            Pattern::Image(glob) => fits(glob, image),
            Pattern::Label(key, value) => labels.iter().any(|(name, says)| {
                fits(key, name) && value.as_ref().is_none_or(|glob| fits(glob, says))
            }),
        };
        let opted_out =
            labels.get(ENABLE).is_some_and(|says| says.trim().eq_ignore_ascii_case("false"));
        let included = self.include.is_empty() || self.include.iter().any(fits);
        included && !opted_out && !self.exclude.iter().any(fits)
    }
}

/// Whether a text fits a glob: its parts between the stars stand in the text, in their order, the
/// first at the beginning and the last at the end.
fn fits(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        let Some((_, behind)) = text.split_once(part) else { return false };
        text = behind;
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(include: &[&str], exclude: &[&str], labels: &[(&str, &str)], expect: bool) {
        let parse = |list: &[&str]| list.iter().map(|p| p.parse().expect("a pattern")).collect();
        let filter = Filter { include: parse(include), exclude: parse(exclude) };
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let takes = filter.takes("web-1", "nginx:1.27", &labels);
        assert_eq!(takes, expect, "{include:?} but {exclude:?} with {labels:?}");
    }

    #[test]
    fn all_are_watched_but_those_that_are_left_out() {
        check(&[], &[], &[], true);
        check(&["web-*"], &[], &[], true);
        check(&["web"], &[], &[], false);
        check(&["db", "image=nginx*"], &[], &[], true);
        check(&["name=*"], &["image=*:1.27"], &[], false);
        check(&["label=tier"], &[], &[], false);
        check(&["label=tier"], &[], &[("tier", "front")], true);
        check(&["label=tier=back"], &[], &[("tier", "front")], false);
        check(&[], &["label=tier=f*"], &[("tier", "front")], false);
    }

    #[test]
    fn a_container_opts_out_by_its_label() {
        check(&["web-1"], &[], &[("aklight.enable", "false")], false);
        check(&[], &[], &[("aklight.enable", " False")], false);
        check(&[], &[], &[("aklight.enable", "true")], true);
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (glob, text, expect) in [
            ("*", "", true),
            ("a*", "a", true),
            ("a*a", "a", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("*b*", "abc", true),
            ("a**c", "ac", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(fits(glob, text), expect, "{glob} {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_told_how_to_be_one() {
        let error = "colour=red".parse::<Pattern>().expect_err("no pattern");
        assert!(error.contains("name=…, image=… or label=KEY[=VALUE]"), "{error}");
        assert!("".parse::<Pattern>().is_err());
        assert!("label=".parse::<Pattern>().is_err());
    }
}
