//! Functions on text that CEL's standard library lacks, named and counted as cel-go's `ext.Strings()` does: positions
//! are in characters, not bytes.
//!
//! Owns: the functions and what one evaluation may spend on them. Never: takes longer than in proportion to the text
//! that it is charged for.
use std::cell::Cell;

use cel::common::types::{CelInt, CelList, CelString, LIST_TYPE, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use crate::limits::{EXPRESSION_ITERATIONS_MAX, EXPRESSION_TEXT_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// What an evaluation has left.
#[derive(Clone, Copy)]
struct Purse {
    /// Bytes of text that functions may still read and write.
    bytes: usize,
    /// Parts that one `split` may give: an expression with nested macros could go through them again and again.
    parts_max: usize,
}

thread_local! {
    // CEL takes plain functions, so what they share cannot be handed to them. An evaluation does not leave its thread.
    static PURSE: Cell<Purse> = const { Cell::new(Purse { bytes: 0, parts_max: 0 }) };
}

/// Begins the account of one evaluation of an expression whose macros nest so deep.
pub(super) fn begin(macro_depth: u32) {
    PURSE.set(Purse { bytes: EXPRESSION_TEXT_BYTES_MAX, parts_max: parts_max(macro_depth) });
}

/// The longest list that macros of this depth may go through.
fn parts_max(macro_depth: u32) -> usize {
    let fits = |len: u64| len.saturating_pow(macro_depth.max(1)) <= EXPRESSION_ITERATIONS_MAX;
    // At most 17 halvings; the root of a float would not be the same everywhere.
    let (mut low, mut high) = (1, EXPRESSION_ITERATIONS_MAX);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    usize::try_from(low).unwrap_or(usize::MAX)
}

fn spend(function: &'static str, bytes: usize) -> Result<(), ExecutionError> {
    let purse = PURSE.get();
    let Some(left) = purse.bytes.checked_sub(bytes) else {
        let most = EXPRESSION_TEXT_BYTES_MAX;
        let text = format!("text functions of one expression may handle {most} bytes; it handles more");
        return Err(ExecutionError::function_error(function, text));
    };
    PURSE.set(Purse { bytes: left, ..purse });
    Ok(())
}

/// Pays for a text that is about to be made, if it may be so large.
fn make(function: &'static str, bytes: usize) -> Result<(), ExecutionError> {
    if bytes > PAYLOAD_BYTES_MAX {
        let text = format!("the text would have {bytes} bytes, at most {PAYLOAD_BYTES_MAX} are allowed");
        return Err(ExecutionError::function_error(function, text));
    }
    spend(function, bytes)
}

/// Adds them to an environment.
pub(super) fn extend(env: &mut Env) -> Result<(), DeclarationError> {
    use cel::add_member_overload as add;
    add!(env, fn char_at: (CelString, CelInt) -> Result<CelString>)?;
    add!(env, fn index_of: (CelString, CelString) -> Result<CelInt>)?;
    add!(env, fn index_of_from: (CelString, CelString, CelInt) -> Result<CelInt>, name = "indexOf")?;
    add!(env, fn last_index_of: (CelString, CelString) -> Result<CelInt>)?;
    add!(env, fn lower_ascii: (CelString) -> Result<CelString>)?;
    add!(env, fn upper_ascii: (CelString) -> Result<CelString>)?;
    add!(env, fn trim: (CelString) -> Result<CelString>)?;
    add!(env, fn replace: (CelString, CelString, CelString) -> Result<CelString>)?;
    add!(env, fn replace_some: (CelString, CelString, CelString, CelInt) -> Result<CelString>, name = "replace")?;
    add!(env, fn split: (CelString, CelString) -> Result<CelList>)?;
    add!(env, fn split_some: (CelString, CelString, CelInt) -> Result<CelList>, name = "split")?;
    add!(env, fn substring: (CelString, CelInt) -> Result<CelString>)?;
    add!(env, fn substring_to: (CelString, CelInt, CelInt) -> Result<CelString>, name = "substring")?;
    // By hand: the list may be of any type that can be gone through.
    env.add_member_overload("join", "list.join()", LIST_TYPE, vec![], join)?;
    env.add_member_overload("join", "list.join(string)", LIST_TYPE, vec![STRING_TYPE], join)
}

type Text = Result<CelString<'static>, ExecutionError>;
type Position = Result<CelInt, ExecutionError>;
type Parts = Result<CelList<'static>, ExecutionError>;

/// Where the character of this position begins; one past the last is the end.
fn byte_of(function: &'static str, text: &str, position: i64) -> Result<usize, ExecutionError> {
    let ends = std::iter::once(text.len());
    let found = usize::try_from(position)
        .ok()
        .and_then(|position| text.char_indices().map(|(byte, _)| byte).chain(ends).nth(position));
    found.ok_or_else(|| {
        let text = format!("position {position} is outside of a text of {} characters", text.chars().count());
        ExecutionError::function_error(function, text)
    })
}

fn position_of(text: &str, byte: Option<usize>) -> CelInt {
    byte.map_or(-1, |byte| text[..byte].chars().count() as i64).into()
}

fn char_at(text: &CelString<'_>, position: &CelInt) -> Text {
    spend("charAt", text.len())?;
    let from = byte_of("charAt", text, *position.inner())?;
    Ok(text[from..].chars().next().map(String::from).unwrap_or_default().into())
}

fn index_of(text: &CelString<'_>, wanted: &CelString<'_>) -> Position {
    spend("indexOf", text.len() + wanted.len())?;
    Ok(position_of(text, text.find(wanted.inner())))
}

fn index_of_from(text: &CelString<'_>, wanted: &CelString<'_>, from: &CelInt) -> Position {
    spend("indexOf", text.len() + wanted.len())?;
    let from = byte_of("indexOf", text, *from.inner())?;
    Ok(position_of(text, text[from..].find(wanted.inner()).map(|byte| byte + from)))
}

fn last_index_of(text: &CelString<'_>, wanted: &CelString<'_>) -> Position {
    spend("lastIndexOf", text.len() + wanted.len())?;
    Ok(position_of(text, text.rfind(wanted.inner())))
}

fn lower_ascii(text: &CelString<'_>) -> Text {
    spend("lowerAscii", text.len())?;
    Ok(text.to_ascii_lowercase().into())
}

fn upper_ascii(text: &CelString<'_>) -> Text {
    spend("upperAscii", text.len())?;
    Ok(text.to_ascii_uppercase().into())
}

fn trim(text: &CelString<'_>) -> Text {
    spend("trim", text.len())?;
    Ok(text.trim().to_owned().into())
}

fn replace(text: &CelString<'_>, from: &CelString<'_>, to: &CelString<'_>) -> Text {
    replace_some(text, from, to, &CelInt::from(-1))
}

/// The first so many; all, when it is negative.
fn replace_some(text: &CelString<'_>, from: &CelString<'_>, to: &CelString<'_>, most: &CelInt) -> Text {
    let most = usize::try_from(*most.inner()).unwrap_or(usize::MAX);
    spend("replace", text.len() + from.len())?;
    let found = text.matches(from.inner()).take(most).count();
    // Counted before it is made: a short text with a long replacement may be a very long one.
    let bytes = text.len() - found * from.len() + found.saturating_mul(to.len());
    make("replace", bytes)?;
    Ok(text.replacen(from.inner(), to.inner(), most).into())
}

fn split(text: &CelString<'_>, at: &CelString<'_>) -> Parts {
    split_some(text, at, &CelInt::from(-1))
}

/// Into at most so many parts, the last of them whole; all, when it is negative. By nothing: into characters.
fn split_some(text: &CelString<'_>, at: &CelString<'_>, most: &CelInt) -> Parts {
    let parts_max = PURSE.get().parts_max;
    let most = usize::try_from(*most.inner()).unwrap_or(usize::MAX);
    spend("split", text.len() + at.len())?;
    // One more than allowed is enough to know that there are too many.
    let wanted = most.min(parts_max + 1);
    let parts: Vec<&str> = match (at.is_empty(), most) {
        (_, 0) => Vec::new(),
        (true, _) => characters(text, wanted),
        (false, _) => text.splitn(wanted, at.inner()).collect(),
    };
    if parts.len() > parts_max {
        let text =
            format!("the text has more than {parts_max} parts, so many may this expression go through");
        return Err(ExecutionError::function_error("split", text));
    }
    let boxed = |part: &str| Box::new(CelString::from(part.to_owned())) as Box<dyn Val>;
    Ok(parts.into_iter().map(boxed).collect::<Vec<_>>().into())
}

fn characters(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if parts.len() + 1 == most {
            parts.push(rest);
            break;
        }
        let (character, others) = rest.split_at(first.len_utf8());
        parts.push(character);
        rest = others;
    }
    parts
}

fn substring(text: &CelString<'_>, from: &CelInt) -> Text {
    spend("substring", text.len())?;
    Ok(text[byte_of("substring", text, *from.inner())?..].to_owned().into())
}

/// Without the character at the second position.
fn substring_to(text: &CelString<'_>, from: &CelInt, to: &CelInt) -> Text {
    spend("substring", text.len())?;
    let (start, end) = (byte_of("substring", text, *from.inner())?, byte_of("substring", text, *to.inner())?);
    match text.get(start..end) {
        Some(part) => Ok(part.to_owned().into()),
        None => {
            let text = format!("it begins at {} and ends before, at {}", from.inner(), to.inner());
            Err(ExecutionError::function_error("substring", text))
        }
    }
}

fn join<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let wrong = |what: String| ExecutionError::function_error("join", what);
    let between = match args.get(1).map(|between| between.as_ref()) {
        None => "",
        Some(between) => between.downcast_ref::<CelString>().map_or("", CelString::inner),
    };
    let list = args.first().and_then(|list| list.as_ref().as_iterable());
    let mut items = list.ok_or_else(|| wrong("only a list can be joined".to_owned()))?.iter();
    let (mut parts, mut bytes) = (Vec::new(), 0_usize);
    while let Some(item) = items.next() {
        let part = item.downcast_ref::<CelString>().ok_or_else(|| {
            wrong(format!("its items must be text, one is {}; string(x) makes text", item.get_type().name()))
        })?;
        bytes += part.len() + between.len();
        parts.push(part.inner());
    }
    make("join", bytes)?;
    Ok(CowVal::owned(CelString::from(parts.join(between))))
}
