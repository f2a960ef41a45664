//! Settings as they enter a semantic key: values with one meaning and one encoding.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::name_map::NameMap;

/// The settings of a stage that determine its bytes: defaults left out, sorted by name.
pub type KeySettings = NameMap<KeyValue>;

/// A value of a setting. Floats are compared and encoded by their bits; NaN cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// The bits of an f64 (see [`KeyValue::float`]).
    FloatBits(u64),
    /// Text.
    Text(String),
    /// In the order given: the order has meaning.
    List(KeyList),
    /// Sorted by name: the order has none.
    Map(KeySettings),
}

/// Values in an order. Clones share them: a setting is kept for the key and for reports.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<KeyValue>", into = "Vec<KeyValue>")]
pub struct KeyList(Arc<[KeyValue]>);

impl fmt::Debug for KeyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Deref for KeyList {
    type Target = [KeyValue];

    fn deref(&self) -> &[KeyValue] {
        &self.0
    }
}

impl From<Vec<KeyValue>> for KeyList {
    fn from(values: Vec<KeyValue>) -> Self {
        KeyList(values.into())
    }
}

impl From<KeyList> for Vec<KeyValue> {
    fn from(list: KeyList) -> Self {
        list.to_vec()
    }
}

impl FromIterator<KeyValue> for KeyList {
    fn from_iter<I: IntoIterator<Item = KeyValue>>(values: I) -> Self {
        KeyList(values.into_iter().collect())
    }
}

impl KeyValue {
    /// A float by its bits; -0.0 becomes 0.0. `None` for NaN.
    pub fn float(value: f64) -> Option<Self> {
        (!value.is_nan()).then(|| KeyValue::FloatBits(if value == 0.0 { 0 } else { value.to_bits() }))
    }
}

/// Types that a setting can have, with their way into the key.
pub trait ToKey {
    /// The value as it enters the key.
    fn to_key(&self) -> KeyValue;
}

impl ToKey for bool {
    fn to_key(&self) -> KeyValue {
        KeyValue::Bool(*self)
    }
}
impl ToKey for u64 {
    fn to_key(&self) -> KeyValue {
        KeyValue::Int(i64::try_from(*self).expect("settings are read as i64, so they fit"))
    }
}
impl ToKey for i64 {
    fn to_key(&self) -> KeyValue {
        KeyValue::Int(*self)
    }
}
impl ToKey for f64 {
    fn to_key(&self) -> KeyValue {
        KeyValue::float(*self).expect("the reader refuses NaN")
    }
}
impl ToKey for String {
    fn to_key(&self) -> KeyValue {
        KeyValue::Text(self.clone())
    }
}
impl<T: ToKey> ToKey for Vec<T> {
    fn to_key(&self) -> KeyValue {
        KeyValue::List(self.iter().map(ToKey::to_key).collect())
    }
}
impl<T: ToKey> ToKey for Option<T> {
    fn to_key(&self) -> KeyValue {
        match self {
            None => KeyValue::Text("null".into()),
            Some(value) => KeyValue::List(vec![value.to_key()].into()),
        }
    }
}
