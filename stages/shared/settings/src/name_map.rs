//! Names to values, sorted by name, in one piece of memory: a map for few entries of which there are many.
//!
//! ```text
//! BTreeMap with one file of a manifest   1,248 bytes, as its node has room for 11
//! NameMap with the same                    112
//! ```
//!
//! A plan holds the manifests and settings of all stages: this made the difference between 80 and 40 MB for 10,000 of them. Its JSON is that of a
//! `BTreeMap`. Inserting out of order, and removing, moves what comes behind.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Index;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Goes over names and values.
type Iter<'a, V> = std::iter::Map<std::slice::Iter<'a, (String, V)>, fn(&'a (String, V)) -> (&'a String, &'a V)>;

/// Names to values, in the order of the names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameMap<V> {
    entries: Vec<(String, V)>,
}

impl<V> NameMap<V> {
    /// Adds a value, or puts it in the place of one with the same name, which is returned.
    pub fn insert(&mut self, name: impl Into<String>, value: V) -> Option<V> {
        let name = name.into();
        match self.find(&name) {
            Ok(at) => Some(std::mem::replace(&mut self.entries[at].1, value)),
            Err(at) => {
                // One more and not twice as many: most never get another.
                self.entries.reserve_exact(1);
                self.entries.insert(at, (name, value));
                None
            }
        }
    }

    /// Takes the value with this name out.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        self.find(name).ok().map(|at| self.entries.remove(at).1)
    }

    /// The value with this name.
    pub fn get(&self, name: &str) -> Option<&V> {
        self.find(name).ok().map(|at| &self.entries[at].1)
    }

    /// Whether there is a value with this name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values, by name.
    pub fn iter(&self) -> Iter<'_, V> {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    /// The same, to change the values.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&String, &mut V)> {
        self.entries.iter_mut().map(|(name, value)| (&*name, value))
    }

    /// The names, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &String> {
        self.entries.iter().map(|(name, _)| name)
    }

    /// The values, by name.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        match self.entries.last() {
            Some((last, _)) if last.as_str() < name => Err(self.entries.len()),
            _ => self.entries.binary_search_by(|(known, _)| known.as_str().cmp(name)),
        }
    }
}

impl<V> Default for NameMap<V> {
    fn default() -> Self {
        NameMap { entries: Vec::new() }
    }
}

impl<V: fmt::Debug> fmt::Debug for NameMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<V> Index<&str> for NameMap<V> {
    type Output = V;

    fn index(&self, name: &str) -> &V {
        self.get(name).expect("no value with this name")
    }
}

impl<'a, V> IntoIterator for &'a NameMap<V> {
    type Item = (&'a String, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Iter<'a, V> {
        self.iter()
    }
}

impl<V> IntoIterator for NameMap<V> {
    type Item = (String, V);
    type IntoIter = std::vec::IntoIter<(String, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<N: Into<String>, V, const LEN: usize> From<[(N, V); LEN]> for NameMap<V> {
    fn from(pairs: [(N, V); LEN]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<N: Into<String>, V> FromIterator<(N, V)> for NameMap<V> {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut map = NameMap::default();
        pairs.into_iter().for_each(|(name, value)| drop(map.insert(name, value)));
        map
    }
}

impl<V: Serialize> Serialize for NameMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for NameMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

struct Entries<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
    type Value = NameMap<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<NameMap<V>, A::Error> {
        let mut map = NameMap::default();
        while let Some((name, value)) = access.next_entry::<String, V>()? {
            map.insert(name, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_is_what_a_btree_map_is() {
        let pairs = [("b", 1), ("a", 2), ("c", 3), ("a", 4), ("", 5)];
        let (map, model): (NameMap<i32>, BTreeMap<&str, i32>) = (pairs.into_iter().collect(), pairs.into());
        assert!(
            map.iter().map(|(name, value)| (name.as_str(), value)).eq(model.iter().map(|(name, value)| (*name, value)))
        );
        assert_eq!((map.len(), map.get("a"), map.get("d"), map["c"]), (4, Some(&4), None, 3));
        let text = serde_json::to_string(&map).expect("text keys");
        assert_eq!(text, serde_json::to_string(&model).expect("text keys"));
        assert_eq!(serde_json::from_str::<NameMap<i32>>(&text).expect("it reads back"), map);
        let mut map = map;
        assert_eq!((map.remove("b"), map.remove("b"), map.len()), (Some(1), None, 3));
        assert_eq!(map, NameMap::from([("c", 3), ("", 5), ("a", 4)]));
    }
}
