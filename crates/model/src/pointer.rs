//! JSON pointers: building them, taking them apart, and writing them for people.
//!
//! Owns: the escapes of RFC 6901 and the readable form `spec.steps[2].when`. Never: looks into a document.

/// The pointer to a member of what `base` points to.
pub(crate) fn join(base: &str, key: &str) -> String {
    format!("{base}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The unescaped parts of a pointer.
pub(crate) fn segments(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"))
}

/// As people say it: `/spec/steps/2/when` is `spec.steps[2].when`.
pub(crate) fn readable(pointer: &str) -> String {
    let mut text = String::new();
    for part in segments(pointer) {
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            text.push('[');
            text.push_str(&part);
            text.push(']');
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(&part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped_and_readable() {
        let pointer = join(&join("/spec", "a/b~c"), "2");
        assert_eq!(pointer, "/spec/a~1b~0c/2");
        assert_eq!(segments(&pointer).collect::<Vec<_>>(), ["spec", "a/b~c", "2"]);
        assert_eq!(readable("/spec/steps/2/when"), "spec.steps[2].when");
        assert_eq!(readable(""), "");
    }
}
