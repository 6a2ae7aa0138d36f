//! What a segment is called: `field=value`, several joined by commas, unambiguously. See `docs/segments.md`.

/// Appends `field=value` to a segment's text.
pub(super) fn append(field: &str, value: Option<&str>, text: &mut String) {
    if !text.is_empty() {
        text.push(',');
    }
    escape(field, text);
    text.push('=');
    escape(value.unwrap_or(MISSING), text);
}

/// The value of a field that has none.
const MISSING: &str = "__missing__";

fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '%' | ',' | '=' | '\0'..='\x1f' | '\x7f' => {
                out.push('%');
                for shift in [4, 0] {
                    let digit = (u32::from(character) >> shift) & 0xF;
                    out.extend(char::from_digit(digit, 16).map(|digit| digit.to_ascii_uppercase()));
                }
            }
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segments_text_is_unambiguous() {
        let of = |fields: &[(&str, Option<&str>)]| {
            let mut text = String::new();
            fields.iter().for_each(|(field, value)| append(field, *value, &mut text));
            text
        };
        assert_eq!(of(&[("country", Some("DE")), ("version", Some("3"))]), "country=DE,version=3");
        assert_eq!(of(&[("country", None)]), "country=__missing__");
        assert_eq!(of(&[("a", Some(""))]), "a=");
        assert_eq!(of(&[("a=b", Some("1,b=2%\n\u{7f}ü"))]), "a%3Db=1%2Cb%3D2%25%0A%7Fü");
    }
}
