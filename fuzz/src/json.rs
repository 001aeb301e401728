//! Changes to a JSON value that leave it JSON, so that what lies behind the parser is reached.

use serde_json::{Value, json};

/// A small generator of its own: a case must come out the same for the same seed.
pub struct Random(u64);

impl Random {
    /// From libFuzzer's seed.
    pub fn new(seed: u32) -> Self {
        Self(u64::from(seed) << 1 | 1)
    }

    /// A number below `limit`, which is at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        // Constants of Knuth's MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// The same text with one value or key changed; none if it is not JSON.
pub fn mutate(text: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(text).ok()?;
    for _ in 0..=random.below(3) {
        let donor = nth(&mut value.clone(), random).clone();
        change(nth(&mut value, random), donor, random);
    }
    serde_json::to_vec(&value).ok()
}

/// Some value of the tree, each as likely as another.
fn nth<'v>(value: &'v mut Value, random: &mut Random) -> &'v mut Value {
    let target = random.below(count(value));
    find(value, target)
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

fn find(value: &mut Value, mut target: usize) -> &mut Value {
    if target == 0 {
        return value;
    }
    target -= 1;
    let inside: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => unreachable!("a leaf holds no further value"),
    };
    for item in inside {
        let values = count(item);
        if target < values {
            return find(item, target);
        }
        target -= values;
    }
    unreachable!("the target is below the count")
}

fn change(value: &mut Value, donor: Value, random: &mut Random) {
    let what = random.below(8);
    match value {
        _ if what == 0 => *value = donor,
        _ if what == 1 => *value = special(random),
        Value::Bool(flag) => *flag = !*flag,
        Value::Number(number) => {
            let (small, float) = (number.as_i64().unwrap_or(0), number.as_f64().unwrap_or(0.0));
            *value = match random.below(6) {
                0 => json!(small.wrapping_add(1)),
                1 => json!(small.wrapping_sub(1)),
                2 => json!(small / 2),
                3 => json!(small.wrapping_mul(2)),
                4 => json!(float * 1e30),
                _ => json!(random.below(40)),
            };
        }
        Value::String(text) => {
            let cut =
                text.char_indices().nth(random.below(text.chars().count() + 1)).map_or(text.len(), |c| c.0);
            match random.below(4) {
                0 => text.truncate(cut),
                1 => text.insert(cut, ['a', ' ', '/', '\0', '\u{301}', '[', '\\', '(', '*'][random.below(9)]),
                2 => text.push_str(&text.clone()),
                _ => *value = donor,
            }
        }
        Value::Array(items) => {
            let at = random.below(items.len() + 1);
            match random.below(3) {
                0 if at < items.len() => drop(items.remove(at)),
                1 if at < items.len() => items.insert(at, items[at].clone()),
                _ => items.insert(at, donor),
            }
        }
        Value::Object(fields) => {
            let Some(key) = fields.keys().nth(random.below(fields.len().max(1))).cloned() else { return };
            match random.below(3) {
                0 => drop(fields.remove(&key)),
                1 => drop(fields.insert(key, donor)),
                _ => drop(fields.insert(donor.as_str().unwrap_or("x").to_string(), special(random))),
            }
        }
        Value::Null => *value = donor,
    }
}

/// Values that parsers get wrong.
fn special(random: &mut Random) -> Value {
    let values = [
        Value::Null,
        json!(0),
        json!(1),
        json!(2),
        json!(-1),
        json!(1 << 22),
        json!(u32::MAX),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(0.5),
        json!(""),
        json!([]),
        json!({}),
        json!(true),
        json!("\u{10ffff}"),
    ];
    values[random.below(values.len())].clone()
}
