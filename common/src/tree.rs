//! The topic tree: topics and patterns level by level, so that one is found by the other without
//! trying each.
//!
//! [`TopicTree`] holds topics and answers "which of you match this pattern": it walks into the
//! one child that a plain level names, into all children for `+`, and takes whole branches for
//! `#`. [`PatternTree`] is its mirror: it holds patterns and answers "which of you match this
//! topic"; a node has, beside its named children, at most one child for `+` and one for `#`, so
//! a topic of n levels meets at most 2ⁿ nodes, and in practice about n.
//!
//! ```text
//! TopicTree                      PatternTree
//! metrics                        metrics ── (#) metrics/#
//! └─ docker                      └─ +
//!    ├─ web ── cpu                  └─ web ── cpu          metrics/+/web/cpu
//!    └─ db ─┬─ cpu
//!           └─ memory
//! ```
//!
//! Invariants: no node is empty but the root (removal prunes); no path is deeper than
//! [`TOPIC_LEVELS_MAX`], which bounds every recursion here. The rule of MQTT 3.1.1 section 4.7.2
//! holds: what begins with `$` is matched by no pattern that begins with a wildcard.
//!
//! Left out: locks. Whoever shares a tree puts its own around it.

use std::collections::BTreeMap;

use crate::Pattern;
use crate::limits::TOPIC_LEVELS_MAX;

/// Topics with a value each, level by level, in the order of their levels.
#[derive(Debug, Clone)]
pub struct TopicTree<T> {
    root: TopicNode<T>,
    len: usize,
}

#[derive(Debug, Clone)]
struct TopicNode<T> {
    value: Option<T>,
    children: BTreeMap<Box<str>, TopicNode<T>>,
}

impl<T> Default for TopicNode<T> {
    fn default() -> Self {
        Self { value: None, children: BTreeMap::new() }
    }
}

impl<T> Default for TopicTree<T> {
    fn default() -> Self {
        Self { root: TopicNode::default(), len: 0 }
    }
}

impl<T> TopicTree<T> {
    /// A tree without a topic.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many topics there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no topic.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a value at a topic and gives back the one that was there.
    ///
    /// # Panics
    /// When `topic` is deeper than a checked topic can be.
    pub fn insert(&mut self, topic: &str, value: T) -> Option<T> {
        let mut node = &mut self.root;
        for (depth, level) in topic.split('/').enumerate() {
            assert!(depth < TOPIC_LEVELS_MAX, "a checked topic is no deeper: {topic}");
            // Two look-ups on the way down spare an allocation wherever the level is known.
            if !node.children.contains_key(level) {
                node.children.insert(level.into(), TopicNode::default());
            }
            node = node.children.get_mut(level).expect("it was put there if it was missing");
        }
        let before = node.value.replace(value);
        self.len += usize::from(before.is_none());
        before
    }

    /// The value at a topic.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&T> {
        let mut node = &self.root;
        for level in topic.split('/') {
            node = node.children.get(level)?;
        }
        node.value.as_ref()
    }

    /// Takes a topic out, and the nodes that only it needed.
    pub fn remove(&mut self, topic: &str) -> Option<T> {
        let taken = self.root.remove(topic)?;
        self.len -= 1;
        Some(taken)
    }

    /// Shows every topic that the pattern matches, in the order of the levels.
    pub fn matching<'a>(&'a self, pattern: &Pattern, visit: &mut dyn FnMut(&str, &'a T)) {
        let levels: Vec<&str> = pattern.levels().collect();
        let mut name = String::new();
        self.root.matching(&levels, &mut name, visit);
    }

    /// Shows every topic, those that begin with `$` too, in the order of the levels.
    pub fn for_each<'a>(&'a self, visit: &mut dyn FnMut(&str, &'a T)) {
        self.root.for_each(&mut String::new(), visit);
    }
}

impl<T> TopicNode<T> {
    fn is_empty(&self) -> bool {
        self.value.is_none() && self.children.is_empty()
    }

    fn remove(&mut self, path: &str) -> Option<T> {
        let (level, rest) = path.split_once('/').map_or((path, None), |(l, r)| (l, Some(r)));
        let child = self.children.get_mut(level)?;
        let taken = match rest {
            None => child.value.take(),
            Some(rest) => child.remove(rest),
        };
        if child.is_empty() {
            self.children.remove(level);
        }
        taken
    }

    /// `name` is the path to this node; it leaves as it came.
    fn matching<'a>(
        &'a self,
        pattern: &[&str],
        name: &mut String,
        visit: &mut dyn FnMut(&str, &'a T),
    ) {
        match pattern.split_first() {
            None => self.show(name, visit),
            Some((&"#", _)) => {
                self.show(name, visit);
                self.each_child(name, &mut |child, name| child.matching(pattern, name, visit));
            }
            Some((&"+", rest)) => {
                self.each_child(name, &mut |child, name| child.matching(rest, name, visit));
            }
            Some((level, rest)) => {
                if let Some(child) = self.children.get(*level) {
                    within(name, level, |name| child.matching(rest, name, visit));
                }
            }
        }
    }

    fn for_each<'a>(&'a self, name: &mut String, visit: &mut dyn FnMut(&str, &'a T)) {
        self.show(name, visit);
        for (level, child) in &self.children {
            within(name, level, |name| child.for_each(name, visit));
        }
    }

    fn show<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&str, &'a T)) {
        if let Some(value) = &self.value {
            visit(name, value);
        }
    }

    /// Every child that a wildcard may stand for.
    fn each_child<'a>(&'a self, name: &mut String, visit: &mut dyn FnMut(&'a Self, &mut String)) {
        let is_root = name.is_empty();
        for (level, child) in &self.children {
            if !(is_root && level.starts_with('$')) {
                within(name, level, |name| visit(child, name));
            }
        }
    }
}

/// Runs `act` with `level` added to the path, and takes it off again.
fn within(name: &mut String, level: &str, act: impl FnOnce(&mut String)) {
    let len = name.len();
    if len > 0 {
        name.push('/');
    }
    name.push_str(level);
    act(name);
    name.truncate(len);
}

/// Patterns with a value each; finds those that match a topic.
#[derive(Debug, Clone)]
pub struct PatternTree<T> {
    root: PatternNode<T>,
    len: usize,
}

#[derive(Debug, Clone)]
struct PatternNode<T> {
    /// Of the pattern that ends here.
    value: Option<T>,
    /// Of the pattern that goes on with `#` and ends.
    below: Option<T>,
    /// Where patterns go on with `+`.
    any: Option<Box<PatternNode<T>>>,
    /// Where patterns go on with a plain level.
    children: BTreeMap<Box<str>, PatternNode<T>>,
}

impl<T> Default for PatternNode<T> {
    fn default() -> Self {
        Self { value: None, below: None, any: None, children: BTreeMap::new() }
    }
}

impl<T> Default for PatternTree<T> {
    fn default() -> Self {
        Self { root: PatternNode::default(), len: 0 }
    }
}

impl<T> PatternTree<T> {
    /// A tree without a pattern.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many patterns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no pattern.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a value at a pattern and gives back the one that was there.
    pub fn insert(&mut self, pattern: &Pattern, value: T) -> Option<T> {
        let mut node = &mut self.root;
        let mut slot_is_below = false;
        for level in pattern.levels() {
            match level {
                "#" => slot_is_below = true,
                "+" => node = node.any.get_or_insert_default(),
                level => {
                    if !node.children.contains_key(level) {
                        node.children.insert(level.into(), PatternNode::default());
                    }
                    node = node.children.get_mut(level).expect("it was put there if missing");
                }
            }
        }
        let slot = if slot_is_below { &mut node.below } else { &mut node.value };
        let before = slot.replace(value);
        self.len += usize::from(before.is_none());
        before
    }

    /// The value at exactly this pattern.
    #[must_use]
    pub fn get(&self, pattern: &Pattern) -> Option<&T> {
        let mut node = &self.root;
        for level in pattern.levels() {
            node = match level {
                "#" => return node.below.as_ref(),
                "+" => node.any.as_deref()?,
                level => node.children.get(level)?,
            };
        }
        node.value.as_ref()
    }

    /// The value at exactly this pattern, to be changed.
    pub fn get_mut(&mut self, pattern: &Pattern) -> Option<&mut T> {
        let mut node = &mut self.root;
        for level in pattern.levels() {
            node = match level {
                "#" => return node.below.as_mut(),
                "+" => node.any.as_deref_mut()?,
                level => node.children.get_mut(level)?,
            };
        }
        node.value.as_mut()
    }

    /// Takes a pattern out, and the nodes that only it needed.
    pub fn remove(&mut self, pattern: &Pattern) -> Option<T> {
        let taken = self.root.remove(pattern.as_str())?;
        self.len -= 1;
        Some(taken)
    }

    /// Shows the value of every pattern that matches the topic, each once.
    pub fn matches<'a>(&'a self, topic: &str, visit: &mut dyn FnMut(&'a T)) {
        if topic.starts_with('$') {
            // No pattern that begins with a wildcard: only the named children of the root.
            let (level, rest) = first_level(topic);
            if let Some(child) = self.root.children.get(level) {
                child.matches(rest, visit);
            }
        } else {
            self.root.matches(Some(topic), visit);
        }
    }
}

impl<T> PatternNode<T> {
    fn is_empty(&self) -> bool {
        self.value.is_none()
            && self.below.is_none()
            && self.any.is_none()
            && self.children.is_empty()
    }

    fn remove(&mut self, path: &str) -> Option<T> {
        let (level, rest) = first_level(path);
        if level == "#" {
            return self.below.take();
        }
        let child = match level {
            "+" => self.any.as_deref_mut()?,
            level => self.children.get_mut(level)?,
        };
        let taken = match rest {
            None => child.value.take(),
            Some(rest) => child.remove(rest),
        };
        if child.is_empty() {
            match level {
                "+" => self.any = None,
                level => drop(self.children.remove(level)),
            }
        }
        taken
    }

    fn matches<'a>(&'a self, topic: Option<&str>, visit: &mut dyn FnMut(&'a T)) {
        // `a/#` matches `a` too, so this node's `#` counts wherever the walk arrives.
        if let Some(below) = &self.below {
            visit(below);
        }
        let Some(topic) = topic else {
            if let Some(value) = &self.value {
                visit(value);
            }
            return;
        };
        let (level, rest) = first_level(topic);
        if let Some(child) = self.children.get(level) {
            child.matches(rest, visit);
        }
        if let Some(any) = &self.any {
            any.matches(rest, visit);
        }
    }
}

fn first_level(path: &str) -> (&str, Option<&str>) {
    path.split_once('/').map_or((path, None), |(level, rest)| (level, Some(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect(text)
    }

    fn check(topics: &[&str], text: &str, expect: &[&str]) {
        let mut tree = TopicTree::new();
        for topic in topics {
            tree.insert(topic, (*topic).to_owned());
        }
        let mut found = Vec::new();
        tree.matching(&pattern(text), &mut |name, value| {
            assert_eq!(name, value, "the path shown is the topic's own");
            found.push(name.to_owned());
        });
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn a_pattern_finds_its_topics_in_the_order_of_the_levels() {
        let topics = ["m/web/cpu", "m", "m/db/cpu", "m/db/memory", "$SYS/cpu", "x/web/cpu"];
        check(&topics, "m/+/cpu", &["m/db/cpu", "m/web/cpu"]);
        check(&topics, "m/#", &["m", "m/db/cpu", "m/db/memory", "m/web/cpu"]);
        check(&topics, "+/+/cpu", &["m/db/cpu", "m/web/cpu", "x/web/cpu"]);
        check(&topics, "+/cpu", &[]);
        check(&topics, "$SYS/#", &["$SYS/cpu"]);
        check(&topics, "m/db", &[]);
    }

    #[test]
    fn removal_prunes_what_nobody_needs() {
        let mut tree = TopicTree::new();
        assert_eq!(tree.insert("a/b/c", 1), None);
        assert_eq!(tree.insert("a", 2), None);
        assert_eq!(tree.insert("a", 3), Some(2));
        assert_eq!(tree.len(), 2);
        assert_eq!(tree.remove("a/b"), None);
        assert_eq!(tree.remove("a/b/c"), Some(1));
        assert!(tree.root.children["a"].children.is_empty());
        assert_eq!((tree.get("a"), tree.len()), (Some(&3), 1));
        assert_eq!(tree.remove("a"), Some(3));
        assert!(tree.root.is_empty() && tree.is_empty());
    }

    #[test]
    fn patterns_come_and_go_each_in_its_own_place() {
        let mut tree = PatternTree::new();
        let texts = ["a/#", "a", "a/+", "+/b", "#", "$SYS/#"];
        for text in texts {
            assert_eq!(tree.insert(&pattern(text), text), None);
            assert_eq!(tree.get(&pattern(text)), Some(&text));
        }
        let mut found = Vec::new();
        tree.matches("a/b", &mut |text| found.push(*text));
        found.sort_unstable();
        assert_eq!(found, ["#", "+/b", "a/#", "a/+"]);
        for (n, text) in texts.iter().enumerate() {
            assert_eq!(tree.remove(&pattern(text)), Some(*text));
            assert_eq!(tree.remove(&pattern(text)), None);
            assert_eq!(tree.len(), texts.len() - n - 1);
        }
        assert!(tree.root.is_empty());
    }
}
