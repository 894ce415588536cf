//! Families of values as Prometheus text: one `# HELP` and one `# TYPE` each, and all values of a
//! family together, however mixed they come in.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a value does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It rises, or begins anew.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A family's name, kind and help.
pub(super) type Family = (&'static str, Kind, &'static str);

/// Values, gathered by family.
#[derive(Default)]
pub(super) struct Exposition {
    families: BTreeMap<&'static str, (Kind, &'static str, String)>,
}

/// Labels as they stand between braces.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels(String);

impl Labels {
    /// With one more label; one without a value is left out.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        if value.is_empty() {
            return self;
        }
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0 += name;
        self.0 += "=\"";
        for letter in value.chars() {
            match letter {
                '\\' => self.0 += "\\\\",
                '"' => self.0 += "\\\"",
                '\n' => self.0 += "\\n",
                letter => self.0.push(letter),
            }
        }
        self.0.push('"');
        self
    }
}

impl Exposition {
    /// Adds a value; none adds nothing.
    pub(super) fn put(&mut self, family: Family, labels: &Labels, value: Option<f64>) {
        let Some(value) = value else { return };
        let (name, kind, help) = family;
        let (_, _, lines) =
            self.families.entry(name).or_insert_with(|| (kind, help, String::new()));
        // Writing into a String does not fail.
        let _ = writeln!(lines, "{name}{{{}}} {value}", labels.0);
    }

    /// All of it.
    pub(super) fn into_text(self) -> String {
        let mut text = String::new();
        for (name, (kind, help, lines)) in self.families {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_stands_together_and_labels_are_escaped() {
        let mut all = Exposition::default();
        let (a, b) = (("a", Kind::Gauge, "A."), ("b_total", Kind::Counter, "B."));
        let odd = Labels::default().with("name", "we\\b\n\"1\"").with("none", "");
        all.put(a, &odd, Some(1.5));
        all.put(b, &Labels::default().with("x", "y").with("z", "w"), Some(2.0));
        all.put(a, &Labels::default().with("name", "2"), Some(3.0));
        all.put(b, &odd, None);
        assert_eq!(
            all.into_text(),
            "# HELP a A.\n# TYPE a gauge\na{name=\"we\\\\b\\n\\\"1\\\"\"} 1.5\na{name=\"2\"} 3\n# HELP b_total B.\n# TYPE b_total counter\nb_total{x=\"y\",z=\"w\"} 2\n"
        );
    }
}
