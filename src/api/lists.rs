//! Lists that are sorted and filtered after they were made: those of things a site has hundreds of, not millions.
use super::model::{Page, Paging};
use super::problem::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;
use std::cmp::Ordering;

/// The field a list is sorted by; of the answer, as it is named there.
pub struct Sort {
    field: String,
    descending: bool,
}

impl Sort {
    /// `text`: one of `fields`, with a `-` before it to turn the order round; None: the first of them.
    pub fn of(text: Option<&str>, fields: &[&str]) -> Result<Self, ApiError> {
        let text = text.unwrap_or_else(|| fields.first().copied().unwrap_or_default());
        let (field, descending) = match text.strip_prefix('-') {
            Some(field) => (field, true),
            None => (text, false),
        };
        if !fields.contains(&field) {
            return Err(ApiError::invalid(format!(
                "sort is one of {}; with a - before it the other way round",
                fields.join(", ")
            )));
        }
        Ok(Self {
            field: field.to_owned(),
            descending,
        })
    }

    fn key(&self, view: &impl Serialize) -> Value {
        let view = serde_json::to_value(view).unwrap_or_default();
        view.get(&self.field).cloned().unwrap_or_default()
    }

    fn compare(&self, a: &(Value, String), b: &(Value, String)) -> Ordering {
        let order = order(&a.0, &b.0);
        let order = if self.descending { order.reverse() } else { order };
        // The id makes the order one that a cursor can name a place in.
        order.then_with(|| a.1.cmp(&b.1))
    }

    /// One part of the list.
    pub fn page<T: Serialize>(
        &self,
        views: Vec<T>,
        paging: &Paging,
        id: impl Fn(&T) -> String,
    ) -> Result<Page<T>, ApiError> {
        self.page_by(views, paging, id, |view, _| self.key(view))
    }

    /// As [`Self::page`]; `key`: what a view is sorted by for a field, where it is not the field itself.
    pub fn page_by<T>(
        &self,
        views: Vec<T>,
        paging: &Paging,
        id: impl Fn(&T) -> String,
        key: impl Fn(&T, &str) -> Value,
    ) -> Result<Page<T>, ApiError> {
        let limit = paging.limit()? as usize;
        let after: Option<(Value, String)> = paging
            .after()?
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|_| ApiError::invalid("the cursor is not one that this server gave for this order"))?;
        let mut keyed: Vec<((Value, String), T)> = views
            .into_iter()
            .map(|view| ((key(&view, &self.field), id(&view)), view))
            .collect();
        if let Some(after) = &after {
            keyed.retain(|(key, _)| self.compare(key, after) == Ordering::Greater);
        }
        keyed.sort_by(|(a, _), (b, _)| self.compare(a, b));
        let more = keyed.len() > limit;
        keyed.truncate(limit);
        let next_cursor = keyed
            .last()
            .filter(|_| more)
            .and_then(|(key, _)| serde_json::to_string(key).ok())
            .map(|text| URL_SAFE_NO_PAD.encode(text));
        Ok(Page {
            items: keyed.into_iter().map(|(_, view)| view).collect(),
            next_cursor,
        })
    }
}

/// What is not known comes first, then numbers, then words without regard to capitals.
fn order(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        _ => 3,
    };
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => {
            let number = |n: &serde_json::Number| n.as_f64().unwrap_or(0.0);
            number(a).total_cmp(&number(b))
        }
        (Value::String(a), Value::String(b)) => {
            a.to_lowercase().cmp(&b.to_lowercase()).then_with(|| a.cmp(b))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Whether a name holds a part that was asked for, without regard to capitals.
pub fn holds(name: &str, part: Option<&str>) -> bool {
    part.is_none_or(|part| name.to_lowercase().contains(&part.to_lowercase()))
}

/// Whether a word is the one that was asked for.
pub fn is(word: &str, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| word.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_part_of_a_sorted_list_comes_once() {
        let views: Vec<Value> = [
            ("e", Some(2)),
            ("D", None),
            ("c", Some(2)),
            ("b", Some(9)),
            ("a", Some(1)),
        ]
        .into_iter()
        .map(|(name, rpo)| json!({ "name": name, "rpo": rpo }))
        .collect();
        let id = |view: &Value| view["name"].as_str().unwrap().to_owned();
        for (sort, expected) in [
            (None, "abcDe"),
            (Some("-name"), "eDcba"),
            (Some("rpo"), "Daceb"),
            (Some("-rpo"), "bceaD"),
        ] {
            let sort = Sort::of(sort, &["name", "rpo"]).unwrap();
            let (mut seen, mut cursor) = (String::new(), None);
            loop {
                let paging = Paging {
                    limit: Some(2),
                    cursor: cursor.take(),
                };
                let page = sort.page(views.clone(), &paging, id).unwrap();
                assert!(page.items.len() <= 2);
                page.items.iter().for_each(|view| seen.push_str(&id(view)));
                match page.next_cursor {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, expected);
        }
        assert!(Sort::of(Some("size"), &["name"]).is_err());
    }
}
