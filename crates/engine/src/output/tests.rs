use super::{Dialect, Marker, Piece, Splitter, Tags, Thought, ToolForm};

/// What a whole answer comes to.
#[derive(Debug, Default, PartialEq)]
struct Whole {
    reasoning: String,
    text: String,
    /// Names and arguments.
    calls: Vec<(String, String)>,
}

fn dialect(tools: Option<ToolForm>, thinks: bool) -> Dialect {
    let marker = |text| Marker { text, token: None };
    Dialect { thinking: thinks.then(|| Tags { open: marker("<think>"), close: marker("</think>") }), tools, ..Dialect::default() }
}

fn split(dialect: &Dialect, thought: Thought, pieces: &[&str]) -> Whole {
    let mut splitter = Splitter::new(dialect, thought, vec!["add".into(), "get_time".into()]);
    let mut found = Vec::new();
    for piece in pieces {
        splitter.push(piece, &mut found);
    }
    splitter.finish(&mut found);
    let mut whole = Whole::default();
    for piece in found {
        match piece {
            Piece::Reasoning(text) => whole.reasoning += &text,
            Piece::Text(text) => {
                assert!(!text.is_empty());
                whole.text += &text;
            }
            Piece::Call(call) => {
                if let Some(name) = call.name {
                    assert_eq!(call.index as usize, whole.calls.len(), "a name comes first and once");
                    whole.calls.push((name, String::new()));
                }
                whole.calls[call.index as usize].1 += &call.arguments;
            }
        }
    }
    assert_eq!(splitter.has_calls(), !whole.calls.is_empty());
    whole
}

/// Checks the text whole, cut in two at every place, and letter by letter.
fn check(dialect: &Dialect, thought: Thought, text: &str, expected: &Whole) {
    assert_eq!(split(dialect, thought, &[text]), *expected, "{text:?}");
    for cut in text.char_indices().map(|(at, _)| at) {
        let (head, tail) = text.split_at(cut);
        assert_eq!(split(dialect, thought, &[head, tail]), *expected, "{head:?} and {tail:?}");
        for second in tail.char_indices().map(|(at, _)| at).step_by(7) {
            assert_eq!(split(dialect, thought, &[head, &tail[..second], &tail[second..]]), *expected, "{text:?} at {cut} and {second}");
        }
    }
    let letters: Vec<&str> = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect();
    assert_eq!(split(dialect, thought, &letters), *expected, "{text:?} letter by letter");
}

/// (answer, content, calls)
type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

fn check_calls(form: ToolForm, rows: &[Row]) {
    for (text, content, calls) in rows {
        let calls = calls.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned())).collect();
        let expected = Whole { reasoning: String::new(), text: (*content).to_owned(), calls };
        check(&dialect(Some(form), false), Thought::Over, text, &expected);
    }
}

#[test]
fn calls_between_tags_are_found_and_all_else_is_content() {
    check_calls(
        ToolForm::Hermes,
        &[
            ("<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>", "", &[("add", "{\"a\": 1}")]),
            ("Let me see.\n\n<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>", "Let me see.", &[("add", "{}")]),
            (
                "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": [1, {\"b\": \"}\\\"\"}]}}\n</tool_call>\n<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>",
                "",
                &[("add", "{\"a\": [1, {\"b\": \"}\\\"\"}]}"), ("get_time", "{}")],
            ),
            ("<tool_call>{\"arguments\": {\"a\": 2}, \"name\": \"add\"}</tool_call> done", " done", &[("add", "{\"a\": 2}")]),
            ("<tool_call>{\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 3}\"}</tool_call>", "", &[("add", "{\"a\": 3}")]),
            ("<tool_call>{\"name\": \"get_time\"}</tool_call>", "", &[("get_time", "{}")]),
            ("<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1}}", "", &[("add", "{\"a\": 1}")]),
            ("<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": ", "", &[("add", "{\"a\": ")]),
            ("<tool_call>hello</tool_call>", "<tool_call>hello</tool_call>", &[]),
            (
                "<tool_call>{\"name\": \"steal\", \"arguments\": {}}</tool_call>",
                "<tool_call>{\"name\": \"steal\", \"arguments\": {}}</tool_call>",
                &[],
            ),
            ("<tool_call>{\"name\": 7}", "<tool_call>{\"name\": 7}", &[]),
            ("<tool_call>{\"name\": \"ad", "<tool_call>{\"name\": \"ad", &[]),
            ("<tool_call><tool_call>{\"name\": \"add\", \"arguments\": {}}</tool_call>", "<tool_call>", &[("add", "{}")]),
            ("a < b, <tool, <tool_cal", "a < b, <tool, <tool_cal", &[]),
            ("  spaces \n stay \n", "  spaces \n stay \n", &[]),
            ("{\"name\": \"add\", \"arguments\": {}}", "{\"name\": \"add\", \"arguments\": {}}", &[]),
            (
                "日本語 <tool_call>{\"name\": \"add\", \"arguments\": {\"text\": \"日本\"}}</tool_call>語",
                "日本語語",
                &[("add", "{\"text\": \"日本\"}")],
            ),
        ],
    );
}

#[test]
fn calls_that_are_the_whole_answer_are_found_and_all_else_is_content() {
    check_calls(
        ToolForm::Llama,
        &[
            ("{\"name\": \"add\", \"parameters\": {\"a\": 1}}", "", &[("add", "{\"a\": 1}")]),
            ("\n{\"type\": \"function\", \"name\": \"add\", \"parameters\": {\"a\": 1}}", "", &[("add", "{\"a\": 1}")]),
            ("<|python_tag|>{\"name\": \"add\", \"parameters\": {}}", "", &[("add", "{}")]),
            (
                "{\"name\": \"add\", \"parameters\": {}}; {\"name\": \"get_time\", \"parameters\": {}}",
                "",
                &[("add", "{}"), ("get_time", "{}")],
            ),
            ("{\"name\": \"Bob\", \"age\": 3}", "{\"name\": \"Bob\", \"age\": 3}", &[]),
            ("{\"answer\": 42}", "{\"answer\": 42}", &[]),
            ("{\"name\": \"add\", \"parameters\": 5}", "{\"name\": \"add\", \"parameters\": 5}", &[]),
            ("Use {\"name\": \"add\", \"parameters\": {}}", "Use {\"name\": \"add\", \"parameters\": {}}", &[]),
            ("<|python_tag|>print(1)", "<|python_tag|>print(1)", &[]),
            ("{", "{", &[]),
        ],
    );
}

#[test]
fn calls_in_a_list_or_by_name_are_found_and_all_else_is_content() {
    check_calls(
        ToolForm::MistralList,
        &[
            ("[TOOL_CALLS][{\"name\": \"add\", \"arguments\": {\"a\": 1}}]", "", &[("add", "{\"a\": 1}")]),
            (
                "[TOOL_CALLS] [{\"name\": \"add\", \"arguments\": {}}, {\"name\": \"get_time\", \"arguments\": {}, \"id\": \"abc123def\"}]",
                "",
                &[("add", "{}"), ("get_time", "{}")],
            ),
            ("[TOOL_CALLS][1, 2]", "[TOOL_CALLS][1, 2]", &[]),
            ("Call: [TOOL_CALLS]", "Call: [TOOL_CALLS]", &[]),
            ("[1, 2] [TOOL", "[1, 2] [TOOL", &[]),
        ],
    );
    check_calls(
        ToolForm::MistralNamed,
        &[
            ("[TOOL_CALLS]add[ARGS]{\"a\": 1}", "", &[("add", "{\"a\": 1}")]),
            ("[TOOL_CALLS]add[CALL_ID]x7[ARGS]{\"a\": {}}[TOOL_CALLS]get_time[ARGS]{}", "", &[("add", "{\"a\": {}}"), ("get_time", "{}")]),
            ("[TOOL_CALLS]add{\"a\": 1}", "", &[("add", "{\"a\": 1}")]),
            ("[TOOL_CALLS][{\"name\": \"add\", \"arguments\": {}}]", "", &[("add", "{}")]),
            ("[TOOL_CALLS]steal[ARGS]{}", "[TOOL_CALLS]steal[ARGS]{}", &[]),
            ("[TOOL_CALLS]add[ARGS]nothing", "[TOOL_CALLS]add[ARGS]nothing", &[]),
        ],
    );
}

#[test]
fn thoughts_are_told_from_the_answer() {
    let rows = [
        ("<think>\nLet me see.\n</think>\n\nYes.", Thought::Open, "Let me see.", "Yes."),
        ("\n<think>a</think>b", Thought::Open, "a", "b"),
        ("Let me see.\n</think>\n\nYes.", Thought::Begun, "Let me see.", "Yes."),
        ("never ends\n", Thought::Begun, "never ends", ""),
        ("<think>never < ends </thin", Thought::Open, "never < ends </thin", ""),
        ("<think>\n\n</think>\n\nYes.", Thought::Open, "", "Yes."),
        ("  Yes <think>no</think>", Thought::Open, "", "  Yes <think>no</think>"),
        ("  <thin", Thought::Open, "", "  <thin"),
        ("Yes.\n", Thought::Over, "", "Yes.\n"),
        ("<think>a\n\nb</think>", Thought::Over, "a\n\nb", ""),
        ("é</think>ü</think>", Thought::Begun, "é", "ü</think>"),
    ];
    for (text, thought, reasoning, content) in rows {
        let expected = Whole { reasoning: reasoning.to_owned(), text: content.to_owned(), calls: Vec::new() };
        check(&dialect(None, true), thought, text, &expected);
    }
}

#[test]
fn a_call_within_a_thought_is_a_thought() {
    let call = "<tool_call>{\"name\": \"add\", \"arguments\": {}}</tool_call>";
    let text = format!("<think>{call}?</think>\n\n{call}");
    let expected = Whole { reasoning: format!("{call}?"), text: String::new(), calls: vec![("add".into(), "{}".into())] };
    check(&dialect(Some(ToolForm::Hermes), true), Thought::Open, &text, &expected);
}

#[test]
fn arguments_come_in_pieces_behind_the_name() {
    let mut splitter = Splitter::new(&dialect(Some(ToolForm::Hermes), false), Thought::Over, vec!["add".into()]);
    let mut seen = Vec::new();
    for piece in ["<tool_call>{\"name\": \"ad", "d\", \"argu", "ments\": {\"a\"", ": 1", "}}</tool_", "call>"] {
        let mut out = Vec::new();
        splitter.push(piece, &mut out);
        let call = |piece: Piece| match piece {
            Piece::Call(call) => (call.name, call.arguments),
            other => panic!("{other:?}"),
        };
        seen.push(out.into_iter().map(call).collect::<Vec<_>>());
    }
    let first = (Some("add".to_owned()), "{\"a\"".to_owned());
    assert_eq!(seen, [vec![], vec![], vec![first], vec![(None, ": 1".into())], vec![(None, "}".into())], vec![]]);
}

#[test]
fn what_never_becomes_a_call_costs_little_and_comes_back_whole() {
    for text in [
        "<tool_call>{\"name\":\"".repeat(4000),
        "<tool_call>".repeat(20_000),
        format!("<tool_call>{{\"id\": \"{}\"", "x".repeat(200_000)),
        " ".repeat(100_000),
    ] {
        let whole = split(&dialect(Some(ToolForm::Hermes), true), Thought::Over, &[&text]);
        let began = text.trim_start();
        assert!(whole.text == text || whole.text == began, "{} bytes of {}", whole.text.len(), text.len());
        assert!(whole.calls.is_empty());
    }
}

#[test]
fn forms_are_found_in_templates() {
    let file = crate::testing::tiny_model("llama", 0, crate::testing::Stored::F32);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, file).unwrap();
    let prompts = crate::Model::open(&path).unwrap().prompts(None).unwrap();
    let of = |template: &str| {
        let Dialect { thinking, tools, .. } = Dialect::of(template, prompts.tokenizer());
        (thinking.map(|tags| tags.close.text), tools)
    };
    assert_eq!(of("{% for tool in tools %}{% endfor %}<tool_call> <think></think>"), (Some("</think>"), Some(ToolForm::Hermes)));
    assert_eq!(of("{{ tools }}[TOOL_CALLS] ["), (None, Some(ToolForm::MistralList)));
    assert_eq!(of("{{ tools }}[TOOL_CALLS][ARGS][THINK][/THINK]"), (Some("[/THINK]"), Some(ToolForm::MistralNamed)));
    assert_eq!(of("{{ tools }}{\"name\": .., \"parameters\": ..}<|python_tag|>"), (None, Some(ToolForm::Llama)));
    assert_eq!(of("{{ messages }}<tool_call>"), (None, None));
}
