//! Logs of a key-value store.
//!
//! `{:process 0, :type :invoke, :f :append, :key "3", :value "x"}`: one event a line; texts have no escapes.
use super::{ParseError, UnderWay, lines, whole};
use crate::history::{History, Recorder};
use crate::models::key_value::{Ask, Input, Output};

/// A history of a key-value store.
pub fn key_value(text: &str) -> Result<History<Input, Output>, ParseError> {
    let (mut recorder, mut under_way) = (Recorder::default(), UnderWay::default());
    lines(text, |line| {
        let process = field(line, ":process ")?.split(',').next().unwrap_or_default();
        let process = process.parse().map_err(|_| format!("`{process}` is not a process"))?;
        let (kind, asked) = (word(line, ":type ")?, word(line, ":f ")?);
        match (kind, asked) {
            (":invoke", _) => {
                let key = text_of(line, ":key ")?.to_owned();
                let value = || text_of(line, ":value ").map(str::to_owned);
                let ask = match asked {
                    ":get" => Ask::Get,
                    ":put" => Ask::Put(value()?),
                    ":append" => Ask::Append(value()?),
                    _ => return Err(format!("`{asked}` is not an operation of a key-value store")),
                };
                under_way.begin(process, recorder.invoke(process, Input { key, ask }))
            }
            (":ok", ":get") => {
                let value = text_of(line, ":value ")?.to_owned();
                recorder.complete(under_way.end(process)?, Output::Value(value));
                Ok(())
            }
            (":ok", ":put" | ":append") => {
                recorder.complete(under_way.end(process)?, Output::Done);
                Ok(())
            }
            _ => Err(format!("`{kind} {asked}` is not known")),
        }
    })?;
    recorder.finish().map_err(|error| whole(&error))
}

/// What follows a name. Texts come last in a line, so that no name is found inside one.
fn field<'a>(line: &'a str, name: &str) -> Result<&'a str, String> {
    line.split_once(name).map(|(_, rest)| rest).ok_or_else(|| format!("no `{name}` in it"))
}

fn word<'a>(line: &'a str, name: &str) -> Result<&'a str, String> {
    Ok(field(line, name)?.split([',', ' ', '}']).next().unwrap_or_default())
}

fn text_of<'a>(line: &'a str, name: &str) -> Result<&'a str, String> {
    let rest = field(line, name)?.strip_prefix('"');
    let text = rest.and_then(|rest| rest.split_once('"')).map(|(text, _)| text);
    text.ok_or_else(|| format!("no text after `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{ClientId, Operation, Returned};

    #[test]
    fn gets_puts_and_appends_are_read() {
        let history = key_value(
            r#"{:process 0, :type :invoke, :f :append, :key "4", :value "x 0 0 y"}
               {:process 12, :type :invoke, :f :get, :key "4", :value nil}
               {:process 12, :type :ok, :f :get, :key "4", :value ""}
               {:process 12, :type :invoke, :f :put, :key "4", :value "z"}
               {:process 0, :type :ok, :f :append, :key "4", :value "x 0 0 y"}"#,
        );
        let operation = |client, ask, invoked, returned: Option<(u64, Output)>| {
            let (input, returned) =
                (Input { key: "4".to_owned(), ask }, returned.map(|(at, output)| Returned { at, output }));
            Operation { client: ClientId(client), input, invoked, returned }
        };
        assert_eq!(
            history.unwrap().operations(),
            [
                operation(0, Ask::Append("x 0 0 y".to_owned()), 1, Some((5, Output::Done))),
                operation(12, Ask::Get, 2, Some((3, Output::Value(String::new())))),
                operation(12, Ask::Put("z".to_owned()), 4, None),
            ]
        );
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        let refused = |line: &str| key_value(line).unwrap_err().to_string();
        assert_eq!(refused("{:process x, }"), "line 1: `x` is not a process");
        assert_eq!(refused("{:process 1}"), "line 1: `1}` is not a process");
        assert_eq!(refused("{:process 1, :f :get}"), "line 1: no `:type ` in it");
        let line = |rest: &str| format!("{{:process 1, :type :invoke, {rest}}}");
        assert_eq!(refused(&line(":f :get, :key nil")), "line 1: no text after `:key `");
        assert_eq!(
            refused(&line(":f :add, :key \"1\"")),
            "line 1: `:add` is not an operation of a key-value store"
        );
        let ended = r#"{:process 1, :type :ok, :f :get, :key "1", :value ""}"#;
        assert_eq!(refused(ended), "line 1: process 1 has nothing under way");
        let failed = r#"{:process 1, :type :fail, :f :get, :key "1", :value nil}"#;
        assert_eq!(refused(failed), "line 1: `:fail :get` is not known");
    }
}
