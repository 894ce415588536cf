//! (in the making)
#![allow(unused, missing_docs, reason = "signatures first; the bodies follow")]

use crate::{Pattern, Topic};

/// Topics with a value each, level by level.
#[derive(Debug)]
pub struct TopicTree<T>(Vec<T>);

impl<T> TopicTree<T> {
    pub fn new() -> Self {
        panic!("in the making")
    }
    pub fn len(&self) -> usize {
        panic!("in the making")
    }
    pub fn is_empty(&self) -> bool {
        panic!("in the making")
    }
    pub fn insert(&mut self, topic: &str, value: T) -> Option<T> {
        panic!("in the making")
    }
    pub fn get(&self, topic: &str) -> Option<&T> {
        panic!("in the making")
    }
    pub fn get_mut(&mut self, topic: &str) -> Option<&mut T> {
        panic!("in the making")
    }
    pub fn remove(&mut self, topic: &str) -> Option<T> {
        panic!("in the making")
    }
    /// Every topic that the pattern matches, in order of the levels.
    pub fn matching(&self, pattern: &Pattern, visit: &mut dyn FnMut(&str, &T)) {
        panic!("in the making")
    }
}

/// Patterns with a value each.
#[derive(Debug)]
pub struct PatternTree<T>(Vec<T>);

impl<T> PatternTree<T> {
    pub fn new() -> Self {
        panic!("in the making")
    }
    pub fn len(&self) -> usize {
        panic!("in the making")
    }
    pub fn is_empty(&self) -> bool {
        panic!("in the making")
    }
    pub fn insert(&mut self, pattern: &Pattern, value: T) -> Option<T> {
        panic!("in the making")
    }
    pub fn get(&self, pattern: &Pattern) -> Option<&T> {
        panic!("in the making")
    }
    pub fn get_mut(&mut self, pattern: &Pattern) -> Option<&mut T> {
        panic!("in the making")
    }
    pub fn remove(&mut self, pattern: &Pattern) -> Option<T> {
        panic!("in the making")
    }
    /// Every pattern that matches the topic.
    pub fn matches(&self, topic: &str, visit: &mut dyn FnMut(&T)) {
        panic!("in the making")
    }
}
