//! The dialogue without a socket: order, limits, dots.

use super::*;

fn code(session: &mut Session, line: &str) -> u16 {
    match session.line(line) {
        Step::Reply(reply) | Step::TakeMessage(reply) | Step::Close(reply) => reply.code,
    }
}

fn codes(session: &mut Session, lines: &[&str]) -> Vec<u16> {
    lines.iter().map(|line| code(session, line)).collect()
}

#[test]
fn a_mail_needs_its_commands_in_order() {
    let mut session = Session::new(None);
    let early = ["DATA", "RCPT TO:<a@b.example>", "MAIL FROM:<a@b.example>", "EHLO", "EHLO client"];
    assert_eq!(codes(&mut session, &early), [503, 503, 503, 501, 250]);
    let mail =
        ["DATA", "MAIL FROM:<>", "DATA", "RCPT TO:<>", "MAIL FROM:<x@y.example>", "rcpt to:<a@b.example>"];
    assert_eq!(codes(&mut session, &mail), [503, 250, 503, 501, 503, 250]);
    assert!(matches!(session.line("DATA"), Step::TakeMessage(Reply { code: 354, .. })));
    assert_eq!(session.finish_mail(), Envelope { from: String::new(), to: vec!["a@b.example".into()] });
    assert_eq!(code(&mut session, "DATA"), 503);
}

#[test]
fn a_reset_forgets_the_mail_and_nothing_else() {
    let mut session = Session::new(None);
    let lines = [
        "HELO c",
        "MAIL FROM:<a@b.example>",
        "RCPT TO:<c@d.example>",
        "RSET",
        "DATA",
        "MAIL FROM:<a@b.example>",
    ];
    assert_eq!(codes(&mut session, &lines), [250, 250, 250, 250, 503, 250]);
}

#[test]
fn what_it_cannot_do_it_says() {
    let mut session = Session::new(None);
    let lines = [
        "EHLO c",
        "STARTTLS",
        "AUTH PLAIN AAAA",
        "BDAT 3",
        "VRFY a",
        "NOOP",
        "MAIL FROM:<a@b.example> RET=FULL",
    ];
    assert_eq!(codes(&mut session, &lines), [250, 502, 502, 500, 252, 250, 555]);
    assert_eq!(code(&mut session, "MAIL FROM:a@b.example"), 501);
    assert_eq!(code(&mut session, "MAIL FROM:<a@b.example,c>"), 501);
    assert!(matches!(session.line("QUIT"), Step::Close(Reply { code: 221, .. })));
}

#[test]
fn a_login_is_asked_for_when_one_is_set() {
    let login = MailLogin { user: "kassa".into(), password: "secret".into() };
    let good = BASE64_STANDARD.encode("\0kassa\0secret");
    let bad = BASE64_STANDARD.encode("\0kassa\0guess");
    let mut session = Session::new(Some(login));
    let lines =
        ["EHLO c", "MAIL FROM:<a@b.example>", "AUTH LOGIN", &format!("AUTH PLAIN {bad}"), "AUTH PLAIN", "%%"];
    assert_eq!(codes(&mut session, &lines), [250, 530, 504, 535, 334, 501]);
    assert_eq!(codes(&mut session, &["AUTH PLAIN", &good, "MAIL FROM:<a@b.example>"]), [334, 235, 250]);
}

#[test]
fn the_limits_are_held_at_the_limit() {
    let mut session = Session::new(None);
    assert_eq!(code(&mut session, "EHLO c"), 250);
    assert_eq!(code(&mut session, &format!("MAIL FROM:<a@b.example> SIZE={}", MAIL_BYTES_MAX + 1)), 552);
    assert_eq!(
        code(&mut session, &format!("MAIL FROM:<a@b.example> SIZE={MAIL_BYTES_MAX} BODY=8BITMIME")),
        250
    );
    for at in 0..RECIPIENTS_MAX {
        assert_eq!(code(&mut session, &format!("RCPT TO:<r{at}@b.example>")), 250);
    }
    assert_eq!(code(&mut session, "RCPT TO:<more@b.example>"), 452);
    assert!(matches!(session.line("DATA"), Step::TakeMessage(_)));
}

#[test]
fn a_client_that_only_errs_is_sent_away() {
    let mut session = Session::new(None);
    for _ in 1..REFUSALS_MAX {
        assert!(matches!(session.line("NONSENSE"), Step::Reply(Reply { code: 500, .. })));
    }
    assert!(matches!(session.line("NONSENSE"), Step::Close(Reply { code: 421, .. })));
}

#[test]
fn replies_of_many_lines_are_joined_with_dashes() {
    let reply = Reply { code: 250, lines: vec!["a".into(), "b".into()] };
    assert_eq!(reply.bytes(), b"250-a\r\n250 b\r\n");
}

fn read(pieces: &[&[u8]]) -> (Vec<u8>, usize) {
    let mut reader = MessageReader::new();
    for (at, piece) in pieces.iter().enumerate() {
        if reader.piece(piece) == Piece::End {
            return (reader.message().unwrap(), at + 1);
        }
    }
    panic!("no end");
}

#[test]
fn dots_are_undone_and_only_at_the_beginning_of_a_line() {
    let (message, used) = read(&[b"..a\r\n", b"b.\r\n", b"...\r\n", b".c\r\n", b".\r\n", b"QUIT\r\n"]);
    assert_eq!(message, b".a\r\nb.\r\n..\r\nc\r\n");
    assert_eq!(used, 5);
}

#[test]
fn a_dot_after_a_lone_line_feed_does_not_end_the_message() {
    let (message, used) =
        read(&[b"a\n", b".\r\n", b"MAIL FROM:<x@y.example>\r\n", b".\n", b".\r\n", b".\r\n"]);
    assert_eq!(used, 6);
    assert!(message.starts_with(b"a\n.\r\nMAIL"));
}

#[test]
fn a_line_end_that_was_read_in_two_parts_is_one() {
    let (message, used) = read(&[b"long line\r", b"\n", b".\r\n"]);
    assert_eq!((message.as_slice(), used), (&b"long line\r\n"[..], 3));
}

#[test]
fn a_message_of_the_largest_size_is_taken_and_one_byte_more_is_not() {
    let fill = |bytes: usize| {
        let mut reader = MessageReader::new();
        assert_eq!(reader.piece(&vec![b'a'; bytes - 2]), Piece::More);
        assert_eq!(reader.piece(b"\r\n"), Piece::More);
        assert_eq!(reader.piece(b".\r\n"), Piece::End);
        reader.message().map(|message| message.len())
    };
    assert_eq!(fill(MAIL_BYTES_MAX), Some(MAIL_BYTES_MAX));
    assert_eq!(fill(MAIL_BYTES_MAX + 1), None);
}
