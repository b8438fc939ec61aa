//! `JsonObject`: writes JSON on one line. Nothing here reads it.

/// An object, member by member. Names are those of the code, which need no escapes.
pub(crate) struct JsonObject(String);

impl JsonObject {
    pub(crate) fn new() -> Self {
        Self("{".to_owned())
    }

    /// A member whose value is JSON.
    pub(crate) fn json(mut self, name: &str, value: &str) -> Self {
        let comma = if self.0.len() > 1 { "," } else { "" };
        self.0 += &format!("{comma}\"{name}\":{value}");
        self
    }

    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        self.json(name, &quoted(value))
    }

    /// Null if it is no number.
    pub(crate) fn number(self, name: &str, value: f64) -> Self {
        let value = Some(value).filter(|value| value.is_finite());
        self.optional(name, value.map(|value| value.to_string()))
    }

    pub(crate) fn integer(self, name: &str, value: impl Into<u64>) -> Self {
        self.json(name, &value.into().to_string())
    }

    pub(crate) fn size(self, name: &str, value: usize) -> Self {
        self.integer(name, value as u64)
    }

    pub(crate) fn flag(self, name: &str, value: bool) -> Self {
        self.json(name, if value { "true" } else { "false" })
    }

    /// A member whose value is JSON, or null.
    pub(crate) fn optional(self, name: &str, value: Option<String>) -> Self {
        self.json(name, value.as_deref().unwrap_or("null"))
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// An array of JSON.
pub(crate) fn list(values: impl IntoIterator<Item = String>) -> String {
    let mut text = "[".to_owned();
    // Bounded: by what its callers list.
    for value in values {
        if text.len() > 1 {
            text.push(',');
        }
        text += &value;
    }
    text.push(']');
    text
}

/// A string, with its quotes.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    // Bounded: by the text.
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(letter);
            }
            // The separators of lines and paragraphs break lines, too, where JSON is a script.
            '\0'..='\u{1f}' | '\u{7f}' | '\u{2028}' | '\u{2029}' => {
                quoted += &format!("\\u{:04x}", u32::from(letter));
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_written_in_order_and_on_one_line() {
        let object = JsonObject::new()
            .text("text", "a \"quoted\" \\ one\r\n\t\0\u{7f}\u{2028}é")
            .number("half", 0.5)
            .number("none", f64::NAN)
            .number("large", 18_446_744_073_709_552_000.0)
            .integer("most", u64::MAX)
            .flag("no", false)
            .optional("missing", None)
            .json("empty", &JsonObject::new().end())
            .json("list", &list(["1".to_owned(), quoted("2")]))
            .json("nothing", &list([]));
        assert_eq!(
            object.end(),
            "{\"text\":\"a \\\"quoted\\\" \\\\ one\\u000d\\u000a\\u0009\\u0000\\u007f\\u2028é\",\
             \"half\":0.5,\"none\":null,\"large\":18446744073709552000,\
             \"most\":18446744073709551615,\"no\":false,\"missing\":null,\"empty\":{},\
             \"list\":[1,\"2\"],\"nothing\":[]}"
        );
    }
}
