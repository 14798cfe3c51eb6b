//! Compiling the fields of a definition: expressions and templates, each against what it may refer to.
//!
//! Owns: the check that every variable and step in an expression exists, with the pointer of the text that holds
//! it. Never: evaluates, or looks at another definition.
use serde_json::Value;

use crate::definition::Step;
use crate::expr::{Expr, References, Template, TemplateError};
use crate::plan::{CompileError, FieldError};

/// Compiles field after field and keeps what is wrong with them.
pub(crate) struct FieldCompiler<'a> {
    errors: Vec<FieldError>,
    steps: &'a [Step],
}

impl<'a> FieldCompiler<'a> {
    /// For a workflow, whose expressions may name these steps.
    pub(crate) fn of_workflow(steps: &'a [Step]) -> FieldCompiler<'a> {
        FieldCompiler { errors: Vec::new(), steps }
    }

    /// For what has no steps.
    pub(crate) fn new() -> FieldCompiler<'a> {
        FieldCompiler::of_workflow(&[])
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.errors.is_empty()
    }

    /// `made`, unless something was wrong on the way.
    pub(crate) fn finish<T>(self, made: Option<T>) -> Result<T, Vec<FieldError>> {
        match made {
            Some(made) if self.errors.is_empty() => Ok(made),
            Some(_) | None => Err(self.errors),
        }
    }

    pub(crate) fn fail(&mut self, pointer: &str, error: impl Into<CompileError>) {
        self.errors.push(FieldError { pointer: pointer.to_owned(), error: error.into() });
    }

    pub(crate) fn expr(&mut self, pointer: &str, source: &str, scope: &[&'static str]) -> Option<Expr> {
        match Expr::compile(source) {
            Ok(expr) => {
                self.check_references(pointer, expr.references(), scope);
                Some(expr)
            }
            Err(error) => {
                self.fail(pointer, error);
                None
            }
        }
    }

    pub(crate) fn template(
        &mut self,
        pointer: &str,
        source: &Value,
        scope: &[&'static str],
    ) -> Option<Template> {
        match Template::compile_all(source) {
            Ok(template) => {
                for (inside, expr) in template.expressions() {
                    self.check_references(&format!("{pointer}{inside}"), expr.references(), scope);
                }
                Some(template)
            }
            Err(errors) => {
                for TemplateError { pointer: inside, error } in
                    std::iter::once(errors.first).chain(errors.others)
                {
                    self.fail(&format!("{pointer}{inside}"), error);
                }
                None
            }
        }
    }

    pub(crate) fn text(&mut self, pointer: &str, source: &str, scope: &[&'static str]) -> Option<Template> {
        self.template(pointer, &Value::String(source.to_owned()), scope)
    }

    pub(crate) fn unknown_step(&mut self, pointer: &str, name: &str) {
        let near = similar(name, self.steps.iter().map(|step| step.id.as_str()));
        self.fail(pointer, CompileError::UnknownStep { name: name.to_owned(), near });
    }

    fn check_references(&mut self, pointer: &str, references: &References, scope: &[&'static str]) {
        let sees_steps = scope.contains(&"steps");
        for name in references.variables.iter().filter(|name| !scope.contains(&name.as_str())) {
            let is_step = sees_steps && self.has_step(name);
            self.fail(
                pointer,
                if is_step {
                    CompileError::StepAsVariable(name.clone())
                } else {
                    CompileError::UnknownVariable { name: name.clone(), known: scope.to_vec() }
                },
            );
        }
        if !sees_steps {
            return;
        }
        if references.steps_as_a_whole {
            self.fail(pointer, CompileError::StepsAsAWhole);
        }
        for step in &references.steps {
            if !self.has_step(step) {
                self.unknown_step(pointer, step);
            }
        }
    }

    fn has_step(&self, name: &str) -> bool {
        self.steps.iter().any(|known| known.id == name)
    }
}

/// The most similar known name, if one is similar enough to be meant.
pub(crate) fn similar<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|name| (edits(wanted, name), name))
        .filter(|(distance, name)| {
            let longest = name.chars().count().max(wanted.chars().count());
            *distance < longest && *distance <= 1 + longest / 4
        })
        .min()
        .map(|(_, name)| name.to_owned())
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_far_ones_are_not_offered() {
        let known = ["affected", "margins", "publish"];
        assert_eq!(similar("affectd", known.into_iter()), Some("affected".to_owned()));
        assert_eq!(similar("marginz", known.into_iter()), Some("margins".to_owned()));
        assert_eq!(similar("zzz", known.into_iter()), None);
        assert_eq!(similar("b", ["a"].into_iter()), None, "nothing of it is left");
        assert_eq!((edits("kitten", "sitting"), edits("", "abc"), edits("abc", "abc")), (3, 3, 0));
    }
}
