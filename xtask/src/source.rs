//! A Rust file, read as its compiler would: functions with their lines, comments, tokens, and what is test code.
//!
//! Owns: parsing. Never: judges what it finds (tidy and coverage do).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A parsed file. Lines are counted from one.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// How many lines the file has.
    pub(crate) lines: usize,
    /// Whether it begins with `//!`.
    pub(crate) has_header: bool,
    /// The text of comments, doc comments too, by line.
    pub(crate) comments: BTreeMap<usize, String>,
    /// All functions with a body, nested ones too.
    pub(crate) functions: Vec<Function>,
    /// All tokens but comments, in order.
    pub(crate) tokens: Vec<Token>,
    /// Lines of items that only exist in tests.
    pub(crate) tests: Vec<RangeInclusive<usize>>,
    /// Modules in files of their own that only exist in tests.
    pub(crate) test_modules: Vec<String>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Its first attribute or doc comment, else the same as `start`.
    pub(crate) top: usize,
    /// The line of `fn`.
    pub(crate) start: usize,
    /// The line of the opening brace.
    pub(crate) open: usize,
    /// The line of the closing brace.
    pub(crate) end: usize,
}

/// A word, a sign, a literal, or one half of a pair of brackets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

impl Source {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let stream: TokenStream = text.parse().map_err(syn::Error::from).context("it does not lex")?;
        let file: syn::File = syn::parse2(stream.clone()).context("it does not parse")?;
        let mut source = Self { lines: text.lines().count(), ..Self::default() };
        source.has_header = file.attrs.iter().any(|attribute| attribute.path().is_ident("doc"));
        if file.attrs.iter().any(is_for_tests) {
            source.tests.push(1..=source.lines);
        }
        source.visit_file(&file);
        let mut reader = Reader { text, line: 1, at: 0, source: &mut source };
        reader.stream(stream);
        reader.skip_to(text.len());
        Ok(source)
    }

    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&line))
    }

    /// Lines that are in the product.
    pub(crate) fn production_lines(&self) -> usize {
        (1..=self.lines).filter(|line| !self.is_test(*line)).count()
    }

    fn item(&mut self, attributes: &[syn::Attribute], first: usize, last: usize) {
        if attributes.iter().any(is_for_tests) {
            self.tests.push(top(attributes, first)..=last);
        }
    }

    fn function(&mut self, attributes: &[syn::Attribute], signature: &syn::Signature, block: &syn::Block) {
        let start = signature.fn_token.span.start().line;
        let braces = block.brace_token.span;
        let function = Function {
            name: signature.ident.to_string(),
            top: top(attributes, start),
            start,
            open: braces.open().start().line,
            end: braces.close().end().line,
        };
        self.item(attributes, start, function.end);
        self.functions.push(function);
    }
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let first = module.mod_token.span.start().line;
        match &module.content {
            Some((braces, _)) => self.item(&module.attrs, first, braces.span.close().end().line),
            None => {
                self.item(&module.attrs, first, module.ident.span().end().line);
                if module.attrs.iter().any(is_for_tests) {
                    self.test_modules.push(module.ident.to_string());
                }
            }
        }
        visit::visit_item_mod(self, module);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.item(&item.attrs, item.impl_token.span.start().line, item.brace_token.span.close().end().line);
        visit::visit_item_impl(self, item);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.attrs, &function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function(&function.attrs, &function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.function(&function.attrs, &function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

fn top(attributes: &[syn::Attribute], first: usize) -> usize {
    attributes.iter().map(|attribute| attribute.pound_token.span.start().line).fold(first, usize::min)
}

/// `#[cfg(test)]`, also within `all(..)` and `any(..)`; `not(test)` is production.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let condition = list.tokens.to_string();
    let mut words = condition.split(|c: char| !c.is_alphanumeric() && c != '_');
    list.path.is_ident("cfg") && words.any(|word| word == "test") && !condition.contains("not")
}

/// Walks the tokens; what lies between two of them is comments.
struct Reader<'a> {
    text: &'a str,
    /// The byte that is read next, and its line.
    at: usize,
    line: usize,
    source: &'a mut Source,
}

impl Reader<'_> {
    fn stream(&mut self, stream: TokenStream) {
        for tree in stream {
            let range = tree.span().byte_range();
            let written = &self.text[range.clone()];
            // A doc comment is an attribute to the compiler: several tokens that all stand for the same text.
            if written.starts_with("//") || written.starts_with("/*") {
                self.skip_to(range.end);
                continue;
            }
            match tree {
                TokenTree::Group(group) => self.group(&group),
                TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => self.token(range),
            }
        }
    }

    fn group(&mut self, group: &Group) {
        if group.delimiter() == Delimiter::None {
            return self.stream(group.stream());
        }
        self.token(group.span_open().byte_range());
        self.stream(group.stream());
        self.token(group.span_close().byte_range());
    }

    fn token(&mut self, range: std::ops::Range<usize>) {
        self.skip_to(range.start);
        let text = self.text[range.clone()].to_owned();
        self.source.tokens.push(Token { text, line: self.line });
        self.line += newlines(&self.text[range.clone()]);
        self.at = range.end;
    }

    /// Takes all text up to `end` as blanks and comments.
    fn skip_to(&mut self, end: usize) {
        if end <= self.at {
            return;
        }
        let gap = &self.text[self.at..end];
        for (offset, line) in gap.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let comment = self.source.comments.entry(self.line + offset).or_default();
            comment.push_str(line.trim());
        }
        self.line += newlines(gap);
        self.at = end;
    }
}

fn newlines(text: &str) -> usize {
    text.matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r##"//! A header.
//! More of it.

/// Says it. "// not a comment's end"
#[inline]
fn say() { // on the line
    let url = "https://example.com // no comment";
    /* a block
       over two lines */
    let raw = r#"// no comment"#;
}

#[cfg(test)]
mod tests {
    fn inner() {
    }
}

#[cfg(not(test))]
fn real() {}

#[cfg(test)]
mod elsewhere;
"##;

    #[test]
    fn functions_know_their_lines() {
        let source = Source::parse(FILE).unwrap();
        let say = Function { name: "say".to_owned(), top: 4, start: 6, open: 6, end: 11 };
        assert_eq!(source.functions[0], say);
        let names = source.functions.iter().map(|function| function.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names, ["say", "inner", "real"]);
    }

    #[test]
    fn comments_are_not_strings() {
        let source = Source::parse(FILE).unwrap();
        assert!(source.has_header);
        let comments = source.comments.iter().map(|(line, text)| (*line, text.as_str())).collect::<Vec<_>>();
        assert_eq!(
            comments,
            [
                (1, "//! A header."),
                (2, "//! More of it."),
                (4, "/// Says it. \"// not a comment's end\""),
                (6, "// on the line"),
                (8, "/* a block"),
                (9, "over two lines */"),
            ]
        );
    }

    #[test]
    fn test_code_is_told_from_production() {
        let source = Source::parse(FILE).unwrap();
        assert_eq!(source.tests, [13..=17, 22..=23]);
        assert_eq!(source.test_modules, ["elsewhere"]);
        assert_eq!(source.production_lines(), 23 - 7);
        assert!(Source::parse("#![cfg(test)]\nfn f() {}\n").unwrap().is_test(2));
    }

    #[test]
    fn tokens_keep_their_lines_after_a_long_literal() {
        let source = Source::parse("fn f() { g(\"a\nb\"); h(); }\n// end").unwrap();
        let h = source.tokens.iter().find(|token| token.text == "h").unwrap();
        assert_eq!(h.line, 2);
        assert_eq!(source.comments[&3], "// end");
    }

    #[test]
    fn what_is_not_rust_is_an_error() {
        assert!(Source::parse("fn f( {").is_err());
        assert!(Source::parse("fn fn fn").is_err());
    }
}
