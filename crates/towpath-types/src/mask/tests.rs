#![allow(clippy::unwrap_used)]
use super::*;
use crate::{SecretBytes, SecretString};

fn mask(secrets: &[&str]) -> Mask {
    let secrets: Vec<SecretString> = secrets.iter().map(|s| SecretString::new((*s).to_string())).collect();
    Mask::new(&secrets)
}

/// The text in one piece, byte by byte, and cut in two at every place gives the same.
fn check(secrets: &[&str], text: &str, expect: &str) {
    let mask = mask(secrets);
    assert_eq!(mask.text(text), expect, "{text}");
    let bytes = text.as_bytes();
    let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut masker, mut out) = (mask.masker(), Vec::new());
        for piece in pieces {
            masker.push(piece, &mut out);
        }
        masker.finish(&mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(run(&mut bytes.chunks(1)), expect, "{text} byte by byte");
    for at in 0..=bytes.len() {
        assert_eq!(
            run(&mut [&bytes[..at], &bytes[at..]].into_iter()),
            expect,
            "{text} cut at {at}"
        );
    }
}

#[test]
fn values_are_masked_wherever_the_pieces_end() {
    check(&[], "nothing to hide", "nothing to hide");
    check(&["hunter2"], "pass hunter2 word", "pass **** word");
    check(&["hunter2"], "hunter2hunter2", "********");
    check(&["hunter2"], "hunter", "hunter");
    check(&["hunter2"], "hunhunter2", "hun****");
    check(&["abcdef", "defghi"], "xabcdefghix", "x****x");
    check(&["abcd", "abcdefgh"], "abcdefgh abcdefg", "**** ****efg");
    check(&["bcde", "abcdef"], "abcdef abcde", "**** a****");
    check(&["aaaa"], "aaaaaaaaaaab", "****b");
    check(&["ünïcödé"], "é ünïcödé é", "é **** é");
}

#[test]
fn short_values_and_booleans_are_left_alone() {
    check(
        &["abc", "true", "false", "", "    ", "\"true\"", "'a'b'"],
        "abc true false ab",
        "abc true false ab",
    );
    check(&["äöüß"], "äöüß", "****");
    // Blanks and slashes are left out of encoded forms only.
    check(
        &["test1", "abcdef"],
        "test 1 te-st1 abc/def ab\ncdef",
        "test 1 te-st1 abc/def ab\ncdef",
    );
}

#[test]
fn a_value_of_several_lines_is_masked_line_by_line() {
    check(
        &["-----BEGIN-----\nMIIEow\n}\n"],
        "-----BEGIN-----\r\nMIIEow\n}\n",
        "****\n",
    );
    check(&["first line\nxy\nlast line"], "xy first line xy", "xy **** xy");
    check(
        &["first line\nxy\nlast line"],
        r#"{"key": "first line\nxy\nlast line"}"#,
        r#"{"key": "****"}"#,
    );
    // A key file of one line is printed by a program that has read it.
    check(
        &[r#"{"key":"-----BEGIN KEY-----\nMIIabcdefgh0123456789\n"}"#],
        "the key:\nMIIabcdefgh0123456789\n",
        "the key:\n****\n",
    );
}

/// What a program that quotes `text` prints.
type Quoting = (&'static str, fn(&str) -> String);

fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    quoted[1..quoted.len() - 1].to_string()
}

fn escaped(text: &str, is_left: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> String {
    text.chars()
        .map(|c| if is_left(c) { c.to_string() } else { escape(c) })
        .collect()
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

fn html(text: &str) -> String {
    let named = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    named.replace('"', "&#34;").replace('\'', "&#x27;")
}

fn single_quoted(text: &str) -> String {
    text.replace('\'', r"'\''")
}

fn base64_padded(bytes: &[u8]) -> String {
    let mut text = String::from_utf8(encoding::base64(bytes)).unwrap();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

fn wrapped(text: &str, width: usize) -> String {
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(width)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    lines.join("\n")
}

const QUOTINGS: [Quoting; 16] = [
    ("nothing", str::to_string),
    ("JSON", json),
    ("JSON in JSON", |text| json(&json(text))),
    ("JSON of ASCII", |text| {
        escaped(
            &json(text),
            |c| c.is_ascii(),
            |c| {
                c.encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}"))
                    .collect()
            },
        )
    }),
    ("JSON for HTML", |text| {
        escaped(
            &json(text),
            |c| !"<>&'".contains(c),
            |c| format!("\\u{:04X}", u32::from(c)),
        )
    }),
    ("set -x", single_quoted),
    ("set -x of another shell", |text| text.replace('\'', r#"'"'"'"#)),
    ("printf %q", |text| {
        escaped(text, |c| c.is_alphanumeric() || c == '\n', |c| format!("\\{c}"))
    }),
    ("declare -p", |text| {
        escaped(text, |c| !"\"\\$`".contains(c), |c| format!("\\{c}"))
    }),
    ("$'…'", |text| {
        let quoted = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n");
        escaped(
            &quoted,
            |c| c.is_ascii(),
            |c| c.encode_utf8(&mut [0; 4]).bytes().map(|b| format!("\\{b:o}")).collect(),
        )
    }),
    ("Rust", |text| {
        let quoted = format!("{text:?}");
        quoted[1..quoted.len() - 1].to_string()
    }),
    ("HTML", html),
    ("HTML twice", |text| html(&html(text))),
    ("URL", percent),
    ("URL twice", |text| percent(&percent(text))),
    ("a form", |text| percent(text).replace("%20", "+")),
];

const ENCODINGS: [Quoting; 12] = [
    ("base64", |text| base64_padded(text.as_bytes())),
    ("base64 for URLs", |text| {
        base64_padded(text.as_bytes()).replace('+', "-").replace('/', "_")
    }),
    ("base64 twice", |text| {
        base64_padded(base64_padded(text.as_bytes()).as_bytes())
    }),
    ("wrapped base64", |text| wrapped(&base64_padded(text.as_bytes()), 8)),
    ("wrapped base64 in JSON", |text| {
        json(&wrapped(&base64_padded(text.as_bytes()), 76))
    }),
    ("base32", |text| {
        String::from_utf8(encoding::base32(text.as_bytes())).unwrap()
    }),
    ("base64 of UTF-16", |text| base64_padded(&encoding::utf16(text))),
    ("hex of UTF-16", |text| hex::encode(encoding::utf16(text))),
    ("hex", |text| hex::encode(text)),
    ("upper hex", |text| hex::encode_upper(text)),
    ("od", |text| {
        let bytes: Vec<String> = text.bytes().map(|b| format!(" {b:02x}")).collect();
        bytes
            .chunks(16)
            .map(|line| line.concat())
            .collect::<Vec<_>>()
            .join("\n")
    }),
    ("hex with colons", |text| {
        text.bytes().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
    }),
];

/// Texts with everything in them that some rule is about, the same ones each time.
fn odd_values() -> Vec<String> {
    const PIECES: [&str; 24] = [
        "a", "Z", "9", "n", "u0041", "x41", "'", "\"", "\\", "$", "&", "&lt;", "%", "%41", " ", "+", "/", "é", "😀",
        "<", "#", "`", "{", "-",
    ];
    let mut seed = 1u64;
    let mut next = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let mut values = Vec::new();
    for _ in 0..300 {
        let length = 4 + next(20);
        let middle: String = (0..length).map(|_| PIECES[next(PIECES.len())]).collect();
        // Edges that no rule is about, so that it is clear where the value ends.
        values.push(format!("Kq7{middle}W4z"));
    }
    values
}

#[test]
fn a_value_is_found_however_a_program_quotes_it() {
    let mut values = odd_values();
    values.extend([
        "hunter2".into(),
        "pa\"ss\\word'42".into(),
        "correct horse battery".into(),
    ]);
    for value in &values {
        let mask = mask(&[value]);
        for (name, quote) in QUOTINGS {
            let quoted = quote(value);
            let masked = mask.text(&format!("before: \"{quoted}\" and after"));
            assert_eq!(masked, "before: \"****\" and after", "{value} as {name}: {quoted}");
        }
    }
}

#[test]
fn a_value_is_found_however_a_program_encodes_it() {
    for value in odd_values().iter().chain([&"hunter22".to_string()]) {
        let mask = mask(&[value]);
        for (name, encode) in ENCODINGS {
            for before in ["", "u", "us", "usr"] {
                if !before.is_empty() && !name.starts_with("base") {
                    continue;
                }
                let encoded = encode(&format!("{before}{value}"));
                let masked = mask.text(&format!("data: {encoded}\nafter"));
                let left = masked.strip_prefix("data: ").unwrap().strip_suffix("\nafter").unwrap();
                // What belongs to the neighbours may stay, and padding.
                let left = left.replace("****", "").replace("PQ", "").replace('=', "");
                assert!(
                    left.len() <= 10,
                    "{value} behind `{before}` as {name}: {encoded} -> {masked}"
                );
            }
        }
    }
}

fn numbers(text: &str, separator: &str, number: impl Fn(u8) -> String) -> String {
    text.bytes().map(number).collect::<Vec<_>>().join(separator)
}

/// The lines of a dump, each with its offset and what `line` makes of its sixteen bytes.
fn dump(text: &str, offset: impl Fn(usize) -> String, line: impl Fn(&[u8]) -> String) -> String {
    let lines = text.as_bytes().chunks(16).enumerate();
    lines
        .map(|(index, bytes)| format!("{}{}\n", offset(index * 16), line(bytes)))
        .collect()
}

fn shown(bytes: &[u8]) -> String {
    let shown = |byte: &u8| {
        if (b' '..=b'~').contains(byte) {
            char::from(*byte)
        } else {
            '.'
        }
    };
    bytes.iter().map(shown).collect()
}

fn words(bytes: &[u8], separator: &str, word: impl Fn(u8, u8) -> String) -> String {
    let word = |pair: &[u8]| word(pair[0], pair.get(1).copied().unwrap_or_default());
    bytes.chunks(2).map(word).collect::<Vec<_>>().join(separator)
}

const DUMPS: [Quoting; 15] = [
    ("a list", |text| {
        format!("[{}]", numbers(text, ", ", |byte| byte.to_string()))
    }),
    ("a list over lines", |text| {
        format!("[\n  {}\n]", numbers(text, ",\n  ", |byte| byte.to_string()))
    }),
    ("signed bytes", |text| {
        numbers(text, ", ", |byte| byte.cast_signed().to_string())
    }),
    ("Go's list", |text| {
        format!("[{}]", numbers(text, " ", |byte| byte.to_string()))
    }),
    ("C's list", |text| numbers(text, ",", |byte| format!("0x{byte:02x}"))),
    ("Node's buffer", |text| {
        format!("<Buffer {}>", numbers(text, " ", |byte| format!("{byte:02x}")))
    }),
    ("octal numbers", |text| numbers(text, " ", |byte| format!("{byte:03o}"))),
    ("xxd", |text| {
        dump(
            text,
            |at| format!("{at:08x}: "),
            |bytes| {
                format!(
                    "{:<41}{}",
                    words(bytes, " ", |a, b| format!("{a:02x}{b:02x}")),
                    shown(bytes)
                )
            },
        )
    }),
    ("hexdump -C", |text| {
        dump(
            text,
            |at| format!("{at:08x}  "),
            |bytes| {
                let half = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
                let (first, second) = bytes.split_at(bytes.len().min(8));
                format!("{:<50}|{}|", format!("{} {}", half(first), half(second)), shown(bytes))
            },
        )
    }),
    ("hexdump", |text| {
        dump(
            text,
            |at| format!("{at:07x} "),
            |bytes| words(bytes, " ", |a, b| format!("{b:02x}{a:02x}")),
        )
    }),
    ("od", |text| {
        dump(
            text,
            |at| format!("{at:07o} "),
            |bytes| words(bytes, " ", |a, b| format!("{:06o}", u16::from_le_bytes([a, b]))),
        )
    }),
    ("od -b", |text| {
        dump(
            text,
            |at| format!("{at:07o} "),
            |bytes| {
                bytes
                    .iter()
                    .map(|byte| format!("{byte:03o}"))
                    .collect::<Vec<_>>()
                    .join(" ")
            },
        )
    }),
    ("od -t x1z", |text| {
        dump(
            text,
            |at| format!("{at:07o}"),
            |bytes| {
                let numbers: String = bytes.iter().map(|byte| format!(" {byte:02x}")).collect();
                format!("{numbers:<48}  >{}<", shown(bytes))
            },
        )
    }),
    ("od -c", |text| {
        dump(
            text,
            |at| format!("{at:07o}"),
            |bytes| {
                let cell = |byte: &u8| match byte {
                    b' '..=b'~' => format!("   {}", char::from(*byte)),
                    b'\n' => "  \\n".to_string(),
                    byte => format!(" {byte:03o}"),
                };
                bytes.iter().map(cell).collect()
            },
        )
    }),
    ("od -A n -t u1", |text| {
        let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:>4}")).collect::<String>();
        dump(text, |_| String::new(), line)
    }),
];

#[test]
fn a_value_is_found_in_lists_and_dumps_of_numbers() {
    let mut values = odd_values();
    values.extend(["hunter22".into(), "grüße aus der Höhle".into()]);
    for value in &values {
        let mask = mask(&[value]);
        for (name, dump) in DUMPS {
            for before in ["", "and"] {
                let printed = dump(&format!("{before}{value}"));
                let masked = mask.text(&format!("data:\n{printed}\nafter 12"));
                let left = masked
                    .strip_prefix("data:\n")
                    .unwrap()
                    .strip_suffix("after 12")
                    .unwrap();
                // What stands before the value may stay, with the offset, and one word around the value.
                let left = left.replace("****", "");
                assert!(
                    left.len() <= 30,
                    "{value} behind `{before}` as {name}:\n{printed}\n{masked}"
                );
            }
        }
    }
}

#[test]
fn numbers_that_say_nothing_stay_and_are_not_held_back() {
    let texts = [
        "took 104 ms, exit code 117\n",
        "104 117 110 116 101\n",
        "cf0159d Say why\n104, 117\n",
        "0000000 done\n",
    ];
    for text in texts {
        let mask = mask(&["hunter2"]);
        let (mut masker, mut out) = (mask.masker(), Vec::new());
        masker.push(text.as_bytes(), &mut out);
        let held = text.len() - out.len();
        assert!(held == 0 || text.contains("101"), "{text}");
        masker.finish(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
    check(&["hunter2"], "[104, 117, 110, 116, 101, 114, 50]", "[****]");
    check(&["hunter2"], "x 0x68,0x75,0x6e,0x74,0x65,0x72,0x32 y", "x **** y");
    check(
        &["hunter2"],
        "00000000: 6875 6e74 6572 320a                      hunter2.\nnext",
        "00000000: ****\nnext",
    );
    check(
        &["hunter2"],
        "0000000   a   h   u   n   t   e   r   2  \\n\n0000011\n",
        "0000000   a****\n0000011\n",
    );
}

#[test]
fn what_a_terminal_does_not_show_hides_nothing() {
    check(
        &["hunter2"],
        "hun\u{1b}]8;;https://example.org\u{7}ter\u{1b}]0;title\u{1b}\\2 b",
        "**** b",
    );
    check(&["hunter2"], "a \u{1b}[1mhun\u{1b}[0mter\u{7}2 b", "a \u{1b}[1m**** b");
    check(&["hunter2"], "h\0u\0n\0t\0e\0r\x002\0", "****\0");
}

#[test]
fn a_wrapped_form_is_found_across_lines_and_words_are_not_held_back() {
    let value = "a secret of some length, so that its base64 takes more than two lines of seventy-six digits each, and then some";
    let encoded = wrapped(&base64_padded(format!("user:{value}").as_bytes()), 76);
    check(
        &[value],
        &format!("    data: {}\n", encoded.replace('\n', "\n      ")),
        "    data: dXNlcjp****U=\n",
    );
    // `aHVudGVyMjI` is its base64, which `a` begins.
    let mask = mask(&["hunter22"]);
    let (mut masker, mut out) = (mask.masker(), Vec::new());
    masker.push(b"the server has started: a\n", &mut out);
    assert_eq!(out, b"the server has started: a\n");
}

#[test]
fn the_beginning_of_a_secret_is_never_given_out() {
    let mask = mask(&["hunter2"]);
    let (mut masker, mut out) = (mask.masker(), Vec::new());
    for byte in b"password: hunter" {
        masker.push(&[*byte], &mut out);
    }
    assert_eq!(out, b"password: ");
    masker.push(b"2 and", &mut out);
    masker.finish(&mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "password: **** and");
}

#[test]
fn what_is_held_back_is_bounded() {
    let mask = mask(&["hunter2"]);
    let (mut masker, mut out) = (mask.masker(), Vec::new());
    for _ in 0..1000 {
        masker.push(b"hunter", &mut out);
        assert!(masker.tail.len() < 7 + REMEMBERED);
    }
    let quoting = usize::try_from(MOST_HELD).unwrap() * 3;
    for filler in [b'"', b'\\', b' '] {
        let (mut masker, mut out) = (mask.masker(), Vec::new());
        masker.push(b"hunt6875", &mut out);
        for piece in vec![filler; quoting].chunks(1000) {
            masker.push(piece, &mut out);
            assert!(masker.tail.len() < quoting / 2);
        }
        masker.push(b"x hunter2 x", &mut out);
        masker.finish(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("hunt6875") && text.ends_with("x **** x"));
        assert_eq!(text.len(), 8 + quoting + 8);
    }
}

#[test]
fn a_very_long_value_is_masked_as_far_as_it_is_there() {
    let value: String = (0..9000).map(|n| format!("{n} ")).collect();
    let mask = mask(&[&value]);
    let masked = mask.text(&format!("<{}>", &value[..20_000]));
    assert!(masked.replace('*', "").len() < 1100, "{}", masked.len());
    assert_eq!(mask.text(&format!("<{}>", value.trim())).replace('*', ""), "<>");
    let encoded = base64_padded(value.trim().as_bytes());
    assert!(mask.text(&encoded).replace('*', "").len() < 4);
}

#[test]
fn pieces_keep_their_length_and_come_again_from_where_they_are_undecided() {
    let mask = mask(&["hunter2", "pa\"ss"]);
    let mut stored = Vec::new();
    let stream = b"a hunter2 {\"p\": \"pa\\\"ss\"} hun";
    let mut sent = 0;
    for end in 1..=stream.len() {
        let taken = mask.in_place(&stream[sent..end], end == stream.len());
        sent += taken.len();
        stored.extend(taken);
    }
    assert_eq!(String::from_utf8(stored).unwrap(), "a ******* {\"p\": \"******\"} hun");
}

#[test]
fn nothing_of_it_prints() {
    assert!(!format!("{:?}", mask(&["hunter2"]).masker()).contains("hunter2"));
}

#[test]
fn a_value_that_is_not_text_is_hidden_in_every_form() {
    let value = b"\x30\x82\x05key\xffstore\r\n\0end\n";
    let mask = Mask::new(&[SecretBytes::new(value.to_vec())]);
    let masked = |text: &[u8]| {
        let (mut masker, mut out) = (mask.masker(), Vec::new());
        masker.push(text, &mut out);
        masker.finish(&mut out);
        out
    };
    let around = |inner: &[u8]| [b"<", inner, b">"].concat();
    for form in [
        &value[..value.len() - 1],
        b"\x30\x82\x05key\xffstore",
        b"MIIFa2V5/3N0b3JlDQoAZW5k",
        b"3082056b6579ff73746f72650d0a00656e64",
        String::from_utf8_lossy(b"\x30\x82\x05key\xffstore").as_bytes(),
    ] {
        assert_eq!(masked(&around(form)), b"<****>", "{}", form.escape_ascii());
    }
    let plain = "\u{fffd}\u{fffd}\u{fffd}\u{fffd} keystore";
    assert_eq!(mask.text(plain), plain);
    // Bytes that all look alike when they are replaced hide nothing but themselves.
    let mask = Mask::new(&[SecretBytes::new(b"\xff\xfe\xfd\xfc\xfb".to_vec())]);
    assert_eq!(mask.text(&"\u{fffd}".repeat(9)), "\u{fffd}".repeat(9));
}
