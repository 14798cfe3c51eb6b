//! Logs of Jepsen's tests of an etcd register.
//!
//! `INFO  jepsen.util - 3 :invoke :cas [2 4]`: a process, what happens, to which operation, with which value. A `:fail` of
//! a `:cas` is an answer (it did not match); a `:fail` of a `:read` learned nothing and is left out; an `:info` says
//! that nobody knows, so the operation stays open.
use super::{ParseError, UnderWay, lines, whole};
use crate::history::{History, Recorder};
use crate::models::register::{Input, Output};

/// A history of one register.
pub fn etcd(text: &str) -> Result<History<Input<i64>, Output<i64>>, ParseError> {
    let (mut recorder, mut under_way) = (Recorder::default(), UnderWay::default());
    lines(text, |line| {
        let (_, told) = line.split_once("jepsen.util - ").ok_or("no `jepsen.util - ` in it")?;
        // Tabs in most logs, blanks in some.
        let mut words = told.split_whitespace();
        let [process, what, operation] = std::array::from_fn(|_| words.next().unwrap_or_default());
        let value = words.collect::<Vec<_>>().join(" ");
        let value = value.as_str();
        let process = process.parse().map_err(|_| format!("`{process}` is not a process"))?;
        if what == ":invoke" {
            let input = input(operation, value)?;
            return under_way.begin(process, recorder.invoke(process, input));
        }
        let ended = under_way.end(process)?;
        match (what, operation) {
            (":ok", ":read") => recorder.complete(ended, Output::Value(register(value)?)),
            (":ok", ":write") => recorder.complete(ended, Output::Written),
            (":ok", ":cas") => recorder.complete(ended, Output::Matched(true)),
            (":fail", ":cas") => recorder.complete(ended, Output::Matched(false)),
            (":fail", ":read") => recorder.forget(ended),
            (":info", _) => {}
            _ => return Err(format!("`{what} {operation}` is not known")),
        }
        Ok(())
    })?;
    recorder.finish().map_err(|error| whole(&error))
}

fn input(operation: &str, value: &str) -> Result<Input<i64>, String> {
    match operation {
        ":read" => Ok(Input::Read),
        ":write" => number(value).map(Input::Write),
        ":cas" => {
            let pair = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
            let (from, to) = pair.and_then(|pair| pair.split_once(' ')).ok_or("a cas needs `[from to]`")?;
            Ok(Input::CompareAndSet { from: number(from)?, to: number(to)? })
        }
        _ => Err(format!("`{operation}` is not an operation of a register")),
    }
}

fn register(value: &str) -> Result<Option<i64>, String> {
    if value == "nil" { Ok(None) } else { number(value).map(Some) }
}

fn number(value: &str) -> Result<i64, String> {
    value.parse().map_err(|_| format!("`{value}` is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{ClientId, Operation, Returned};

    fn log(lines: &[&str]) -> String {
        lines.iter().map(|line| format!("INFO  jepsen.util - {line}\n")).collect()
    }

    #[test]
    fn what_failed_is_an_answer_or_nothing_and_what_timed_out_stays_open() {
        let text = log(&[
            "0\t:invoke\t:read\tnil",
            "1\t:invoke\t:write\t4",
            "0  :fail :read :timed-out",
            "2 :invoke :cas [2 4]",
            "1 :info :write :timed-out",
            "2 :fail :cas [2 4]",
            "0 :invoke :read nil",
            "0 :ok :read nil",
        ]);
        let history = etcd(&text).unwrap();
        let operation = |client, input, invoked, returned: Option<(u64, Output<i64>)>| {
            let returned = returned.map(|(at, output)| Returned { at, output });
            Operation { client: ClientId(client), input, invoked, returned }
        };
        assert_eq!(
            history.operations(),
            [
                operation(1, Input::Write(4), 2, None),
                operation(2, Input::CompareAndSet { from: 2, to: 4 }, 3, Some((4, Output::Matched(false)))),
                operation(0, Input::Read, 5, Some((6, Output::Value(None)))),
            ]
        );
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        let refused = |lines: &[&str]| etcd(&log(lines)).unwrap_err().to_string();
        let read = "0 :invoke :read nil";
        assert_eq!(refused(&[read, read]), "line 2: process 0 invokes before its last operation ended");
        assert_eq!(refused(&["0 :ok :read 1"]), "line 1: process 0 has nothing under way");
        assert_eq!(refused(&[read, "0 :ok :read x"]), "line 2: `x` is not a number");
        assert_eq!(refused(&["0 :invoke :cas 3"]), "line 1: a cas needs `[from to]`");
        assert_eq!(refused(&["0 :invoke :add 3"]), "line 1: `:add` is not an operation of a register");
        assert_eq!(
            refused(&["0 :invoke :write 3", "0 :fail :write 3"]),
            "line 2: `:fail :write` is not known"
        );
        assert_eq!(refused(&["x :invoke :read nil"]), "line 1: `x` is not a process");
        assert_eq!(etcd("\nWARN\n").unwrap_err().to_string(), "line 2: no `jepsen.util - ` in it");
    }
}
