//! The body of a management request.

use std::collections::BTreeMap;

use serde_json::Value;

use super::reply::invalid;
use crate::error::{ErrorCode, Failure, Outcome};

/// The longest name of a resource.
const NAME_LIMIT: usize = 80;

/// A body of JSON. Fields are named by pointers such as `/properties/incremental`.
#[derive(Debug)]
pub(super) struct Input(Value);

impl Input {
    pub(super) fn parse(body: &[u8]) -> Outcome<Input> {
        let value = serde_json::from_slice(body).ok().filter(Value::is_object);
        value.map(Input).ok_or_else(|| ErrorCode::InvalidRequestContent.into())
    }

    /// A field that is there and not null.
    fn field(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, pointer: &str) -> Outcome<Option<&str>> {
        let Some(value) = self.field(pointer) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| wrong_kind(pointer, value))
    }

    pub(super) fn flag(&self, pointer: &str) -> Outcome<Option<bool>> {
        let Some(value) = self.field(pointer) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong_kind(pointer, value))
    }

    pub(super) fn number(&self, pointer: &str) -> Outcome<Option<i64>> {
        let Some(value) = self.field(pointer) else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| wrong_kind(pointer, value))
    }

    pub(super) fn required_text(&self, pointer: &str) -> Outcome<&str> {
        self.text(pointer)?.filter(|text| !text.is_empty()).ok_or_else(|| {
            let name = last_name(pointer);
            invalid(name, format!("Required parameter '{name}' is missing (null)."))
        })
    }

    /// Tags; none if the body does not speak of them.
    pub(super) fn tags(&self) -> Outcome<Option<BTreeMap<String, String>>> {
        let Some(value) = self.field("/tags") else { return Ok(None) };
        let fields = value.as_object().ok_or_else(|| wrong_kind("/tags", value))?;
        let tag = |(name, value): (&String, &Value)| {
            let text = value.as_str().ok_or_else(|| wrong_kind("/tags", value))?;
            Ok((name.clone(), text.to_owned()))
        };
        fields.iter().map(tag).collect::<Outcome<_>>().map(Some)
    }

    /// The region, as names of regions are compared: `West Europe` is `westeurope`.
    pub(super) fn location(&self) -> Outcome<String> {
        Ok(self.required_text("/location")?.replace(' ', "").to_ascii_lowercase())
    }
}

/// Refuses what cannot be the name of a resource.
pub(super) fn check_name(name: &str) -> Outcome<()> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    if name.len() <= NAME_LIMIT && name.chars().all(allowed) {
        return Ok(());
    }
    let text =
        format!("The resource name '{name}' is invalid: at most 80 of letters, digits, '_', '-' and '.'.");
    Err(Failure::from(ErrorCode::InvalidResourceName).saying(text))
}

fn wrong_kind(pointer: &str, value: &Value) -> Failure {
    let name = last_name(pointer);
    invalid(name, format!("The value '{value}' of parameter '{name}' is invalid."))
}

fn last_name(pointer: &str) -> &str {
    pointer.rsplit('/').next().unwrap_or(pointer)
}
