//! What was looked up lately: a bounded memory in front of the store, for what every frame asks.
//!
//! Pure. Whoever changes what is at rest forgets it here; a look-up that began before the change is not kept.

use std::collections::BTreeMap;

/// Answers by what was asked.
#[derive(Debug)]
pub struct Recent<K, V> {
    entries: BTreeMap<K, V>,
    most: usize,
    changes: u64,
}

/// Before a look-up: what is known, or the state of things in which the answer counts.
pub enum Known<V> {
    /// The answer.
    Answer(V),
    /// To be handed to [`Recent::keep`] with the answer.
    Ask(u64),
}

impl<K: Ord, V: Clone> Recent<K, V> {
    /// With room for so many.
    pub fn new(most: usize) -> Recent<K, V> {
        Recent { entries: BTreeMap::new(), most, changes: 0 }
    }

    /// What is known.
    pub fn get(&self, key: &K) -> Known<V> {
        match self.entries.get(key) {
            Some(answer) => Known::Answer(answer.clone()),
            None => Known::Ask(self.changes),
        }
    }

    /// Keep an answer, unless anything has changed since it was asked for.
    pub fn keep(&mut self, key: K, answer: V, asked: u64) {
        if asked != self.changes {
            return;
        }
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            // whichever it is: it is looked up again
            self.entries.pop_first();
        }
        self.entries.insert(key, answer);
    }

    /// What is at rest changes.
    pub fn forget(&mut self, key: &K) {
        self.changes += 1;
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_until_it_changes_and_an_older_one_never() {
        let mut recent = Recent::new(2);
        let Known::Ask(asked) = recent.get(&1) else { panic!() };
        recent.keep(1, "a", asked);
        assert!(matches!(recent.get(&1), Known::Answer("a")));
        let Known::Ask(asked) = recent.get(&2) else { panic!() };
        recent.forget(&1);
        recent.keep(2, "old", asked);
        assert!(matches!(recent.get(&1), Known::Ask(_)) && matches!(recent.get(&2), Known::Ask(_)));
    }

    #[test]
    fn it_is_bounded() {
        let mut recent = Recent::new(2);
        for key in 0..10 {
            recent.keep(key, (), 0);
        }
        assert_eq!(recent.entries.len(), 2);
        assert!(matches!(recent.get(&9), Known::Answer(())));
    }
}
