//! The trees against the plain matcher, over topics and patterns drawn from a small alphabet, so
//! that they meet often.

use std::collections::BTreeSet;

use aklight_common::Pattern;
use aklight_common::matcher::Matcher;
use aklight_common::tree::{PatternTree, TopicTree};
use proptest::collection::vec;
use proptest::prelude::*;

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "cpu", "$SYS", "$", "é"])
}

fn topic() -> impl Strategy<Value = String> {
    vec(level(), 1..6).prop_map(|levels| levels.join("/"))
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let level = prop_oneof![2 => level(), 1 => Just("+")];
    (vec(level, 0..6), any::<bool>())
        .prop_filter("a pattern has a level", |(levels, hash)| *hash || !levels.is_empty())
        .prop_map(|(mut levels, hash)| {
            if hash {
                levels.push("#");
            }
            Pattern::new(&levels.join("/")).expect("a pattern")
        })
}

proptest! {
    #[test]
    fn a_matcher_answers_what_its_pattern_answers(pattern in pattern(), topics in vec(topic(), 1..20)) {
        let matcher = Matcher::new(&pattern);
        // Each pattern meets a topic that it matches, too.
        let own = pattern.as_str().replace('+', "a").replace('#', "b");
        for topic in topics.iter().chain([&own]) {
            let expect = pattern.matches(topic);
            prop_assert_eq!(matcher.matches(topic.as_bytes()), expect, "{} over {}", pattern, topic);
        }
    }

    #[test]
    fn the_topic_tree_finds_what_the_plain_matcher_finds(
        topics in vec(topic(), 0..60),
        gone in vec(any::<prop::sample::Index>(), 0..20),
        pattern in pattern(),
    ) {
        let mut tree = TopicTree::new();
        let mut names: BTreeSet<String> = BTreeSet::new();
        for topic in &topics {
            prop_assert_eq!(tree.insert(topic, topic.clone()).is_some(), !names.insert(topic.clone()));
        }
        for index in gone.iter().filter(|_| !topics.is_empty()) {
            let topic = index.get(&topics);
            prop_assert_eq!(tree.remove(topic).is_some(), names.remove(topic));
        }
        prop_assert_eq!(tree.len(), names.len());
        let mut found = Vec::new();
        tree.matching(&pattern, &mut |name, value| {
            assert_eq!(name, value);
            found.push(name.to_owned());
        });
        let unique: BTreeSet<String> = found.iter().cloned().collect();
        prop_assert_eq!(unique.len(), found.len(), "each once");
        let expect: BTreeSet<String> =
            names.into_iter().filter(|name| pattern.matches(name)).collect();
        prop_assert_eq!(unique, expect);
    }

    #[test]
    fn the_pattern_tree_finds_what_the_plain_matcher_finds(
        patterns in vec(pattern(), 0..60),
        gone in vec(any::<prop::sample::Index>(), 0..20),
        topic in topic(),
    ) {
        let mut tree = PatternTree::new();
        let mut kept: BTreeSet<Pattern> = BTreeSet::new();
        for pattern in &patterns {
            prop_assert_eq!(
                tree.insert(pattern, pattern.clone()).is_some(),
                !kept.insert(pattern.clone())
            );
        }
        for index in gone.iter().filter(|_| !patterns.is_empty()) {
            let pattern = index.get(&patterns);
            prop_assert_eq!(tree.remove(pattern).is_some(), kept.remove(pattern));
        }
        prop_assert_eq!(tree.len(), kept.len());
        let mut found = Vec::new();
        tree.matches(&topic, &mut |pattern| found.push(pattern.clone()));
        let unique: BTreeSet<Pattern> = found.iter().cloned().collect();
        prop_assert_eq!(unique.len(), found.len(), "each once");
        let expect: BTreeSet<Pattern> =
            kept.into_iter().filter(|pattern| pattern.matches(&topic)).collect();
        prop_assert_eq!(unique, expect);
    }
}

/// Thousands of patterns are found for a topic by its own few levels: the walk meets a handful
/// of nodes, and the count of what it shows is exact.
#[test]
fn thousands_of_topics_meet_thousands_of_patterns() {
    let mut topics = TopicTree::new();
    let mut patterns = PatternTree::new();
    for host in 0..2000 {
        topics.insert(&format!("metrics/docker/host{host}/cpu"), host);
        topics.insert(&format!("metrics/docker/host{host}/memory"), host);
        patterns.insert(&Pattern::new(&format!("metrics/docker/host{host}/#")).expect("ok"), host);
        patterns.insert(&Pattern::new(&format!("metrics/+/host{host}/cpu")).expect("ok"), host);
    }
    for host in 0..2000 {
        let mut found = Vec::new();
        patterns.matches(&format!("metrics/docker/host{host}/cpu"), &mut |h| found.push(*h));
        assert_eq!(found, [host, host]);
    }
    let mut count = 0;
    topics.matching(&Pattern::new("metrics/+/+/cpu").expect("ok"), &mut |_, _| count += 1);
    assert_eq!(count, 2000);
}
