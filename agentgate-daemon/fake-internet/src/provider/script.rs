//! What the models behind every provider do: the same for the same request, so that two runs of a client
//! are equal. Where tools are offered and no result is in yet they are called; with a result, or without
//! tools, something is said.

use serde_json::{Value, json};

/// What the shell is asked to do: its answer is not in the question, so that who has it ran it. Without
/// substitutions, which some command lines refuse to run unasked.
pub(crate) const COMMAND: &str = "printf 'the answer is %d\\n' 0x2a";
/// What the shell then says.
pub(crate) const ANSWER: &str = "the answer is 42";
/// What is said before tools are called.
pub(crate) const PREFACE: &str = "Let me look at the files.";
/// What is thought, where thinking is asked for.
pub(crate) const THOUGHT: &str = "The user wants something done. A tool can do it.";
/// Most calls in one turn.
const MOST_CALLS: usize = 2;
/// Most that a description of data is followed down.
const DEPTH: usize = 8;

/// A request to a model, as far as the script looks at it.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// All that is said to the model, whoever said it.
    pub(crate) said: String,
    pub(crate) tools: Vec<Tool>,
    /// What tools gave since the model's last turn.
    pub(crate) results: Vec<String>,
    /// The answer must be JSON of this schema.
    pub(crate) schema: Option<Value>,
    /// How far the conversation is: names what is made in this turn.
    pub(crate) turn: usize,
    /// Thinking is to be shown.
    pub(crate) thinks: bool,
}

/// A tool on offer.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) takes: Takes,
}

/// What a tool takes.
#[derive(Clone, Debug)]
pub(crate) enum Takes {
    /// JSON of this schema.
    Json(Value),
    /// Text; JavaScript, for the one tool that is known to be like that.
    Text,
}

/// What a tool is given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Given {
    Json(Value),
    Text(String),
}

impl Given {
    /// As a string, which is how most formats carry it.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Json(value) => value.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// A tool is called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) given: Given,
}

/// What a model does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Turn {
    Say(String),
    /// After [`PREFACE`].
    Call(Vec<Call>),
}

impl Tool {
    /// One that takes JSON.
    pub(crate) fn json(name: &str, schema: Option<&Value>) -> Self {
        Self { name: name.to_owned(), takes: Takes::Json(schema.cloned().unwrap_or_else(|| json!({}))) }
    }

    /// One that takes text.
    pub(crate) fn text(name: &str) -> Self {
        Self { name: name.to_owned(), takes: Takes::Text }
    }

    /// What a shell is given; `None` where this is no shell.
    fn as_shell(&self) -> Option<Given> {
        let known = ["bash", "shell", "run_shell_command", "exec_command", "local_shell", "shell_command"];
        match &self.takes {
            Takes::Text if self.name == "exec" => {
                let command = Value::from(COMMAND);
                Some(Given::Text(format!(
                    "const r = await tools.exec_command({{cmd: {command}}});\ntext(r.output);\n"
                )))
            }
            Takes::Text => None,
            Takes::Json(schema) if known.contains(&self.name.to_ascii_lowercase().as_str()) => {
                let key = if schema.pointer("/properties/cmd").is_some() { "cmd" } else { "command" };
                let words = schema.pointer(&format!("/properties/{key}/type")) == Some(&json!("array"));
                let command = if words { json!(["sh", "-c", COMMAND]) } else { json!(COMMAND) };
                let mut given = example(schema, DEPTH).as_object().cloned().unwrap_or_default();
                given.insert(key.to_owned(), command);
                Some(Given::Json(Value::Object(given)))
            }
            Takes::Json(_) => None,
        }
    }
}

impl Asked {
    /// What the model does.
    pub(crate) fn turn(&self) -> Turn {
        if let Some(schema) = &self.schema {
            return Turn::Say(example(schema, DEPTH).to_string());
        }
        if !self.results.is_empty() {
            let found = self.results.iter().any(|result| result.contains(ANSWER));
            return Turn::Say(if found {
                format!("Done: the tool printed `{ANSWER}`.")
            } else {
                format!("Done, after {} of tools.", count(self.results.len(), "result"))
            });
        }
        let shell = self.tools.iter().find_map(|tool| Some((tool, tool.as_shell()?)));
        if let Some((tool, given)) = shell {
            return Turn::Call(vec![self.call(0, tool, given)]);
        }
        if !self.tools.is_empty() {
            let calls = self.tools.iter().take(MOST_CALLS).enumerate().map(|(n, tool)| {
                let given = match &tool.takes {
                    Takes::Json(schema) => Given::Json(example(schema, DEPTH)),
                    Takes::Text => Given::Text("some text".to_owned()),
                };
                self.call(n, tool, given)
            });
            return Turn::Call(calls.collect());
        }
        if self.said.contains("SEARCH/REPLACE") {
            return Turn::Say(EDIT.to_owned());
        }
        Turn::Say("This is the fake internet speaking. All is well.".to_owned())
    }

    fn call(&self, n: usize, tool: &Tool, given: Given) -> Call {
        Call { id: format!("fake_{:03}_{n}", self.turn), name: tool.name.clone(), given }
    }
}

/// A file in the form that editors without tools ask for.
const EDIT: &str = "Here is the greeting.

greeting.txt
```
<<<<<<< SEARCH
=======
hello from the model
>>>>>>> REPLACE
```
";

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Something of that JSON schema: what it requires and no more.
pub(crate) fn example(schema: &Value, depth: usize) -> Value {
    let Some(depth) = depth.checked_sub(1) else { return Value::Null };
    if let Some(first) = schema.get("enum").and_then(|choices| choices.get(0)) {
        return first.clone();
    }
    for fixed in ["const", "default"] {
        if let Some(value) = schema.get(fixed) {
            return value.clone();
        }
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(choice).and_then(|choices| choices.get(0)) {
            return example(first, depth);
        }
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first(),
        kind => kind,
    };
    // Gemini writes types in capitals.
    let kind = kind.and_then(Value::as_str).unwrap_or("object").to_ascii_lowercase();
    match kind.as_str() {
        "string" => json!("example"),
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        "boolean" => json!(true),
        "null" => Value::Null,
        "array" => json!([schema.get("items").map_or(Value::Null, |items| example(items, depth))]),
        _ => {
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            let fields = required.filter_map(Value::as_str).map(|name| {
                let property = schema.get("properties").and_then(|properties| properties.get(name));
                (name.to_owned(), property.map_or(Value::Null, |property| example(property, depth)))
            });
            Value::Object(fields.collect())
        }
    }
}

/// The text in what may be a string, a list of parts with `text`, or anything else.
pub(crate) fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text).collect::<Vec<_>>().join("\n"),
        Value::Object(part) => {
            let inner = ["text", "content", "output"].iter().find_map(|key| part.get(*key));
            inner.map(text).unwrap_or_default()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

/// Text in pieces, as models give it.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

/// JSON in pieces that respect nothing of its syntax; the first is empty, as it is with real models.
pub(crate) fn shards(json: &str) -> Vec<&str> {
    let mut shards = vec![""];
    let mut rest = json;
    while !rest.is_empty() {
        let cut = (9..=rest.len()).find(|cut| rest.is_char_boundary(*cut)).unwrap_or(rest.len());
        let (shard, more) = rest.split_at(cut);
        shards.push(shard);
        rest = more;
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_asked_something_that_only_a_shell_can_answer() {
        assert!(!COMMAND.contains(ANSWER));
        let rows = [
            (json!({"required": ["command"]}), json!({"command": COMMAND})),
            (json!({"properties": {"cmd": {"type": "string"}}}), json!({"cmd": COMMAND})),
            (
                json!({"properties": {"command": {"type": "array"}}}),
                json!({"command": ["sh", "-c", COMMAND]}),
            ),
            (
                json!({"required": ["command", "description"],
                       "properties": {"description": {"type": "string"}}}),
                json!({"command": COMMAND, "description": "example"}),
            ),
        ];
        for (schema, expect) in rows {
            let tools = vec![Tool::json("Read", None), Tool::json("Bash", Some(&schema))];
            let asked = Asked { tools, turn: 3, ..Asked::default() };
            let call = Call { id: "fake_003_0".into(), name: "Bash".into(), given: Given::Json(expect) };
            assert_eq!(asked.turn(), Turn::Call(vec![call]));
        }
    }

    #[test]
    fn results_end_the_turns_and_schemas_are_kept() {
        let result = |text: &str| Asked { results: vec![text.to_owned()], ..Asked::default() }.turn();
        assert_eq!(
            result("Output:\nthe answer is 42\n"),
            Turn::Say(format!("Done: the tool printed `{ANSWER}`."))
        );
        assert_eq!(result("denied"), Turn::Say("Done, after 1 result of tools.".into()));
        let schema = json!({"type": "OBJECT", "required": ["a", "b"], "properties": {
            "a": {"type": "string", "enum": ["flash", "pro"]},
            "b": {"type": ["array", "null"], "items": {"anyOf": [{"type": "integer", "minimum": 7}]}},
            "c": {"type": "string"},
        }});
        assert_eq!(example(&schema, DEPTH), json!({"a": "flash", "b": [7]}));
        let asked = Asked { schema: Some(schema), tools: vec![Tool::json("bash", None)], ..Asked::default() };
        assert_eq!(asked.turn(), Turn::Say(r#"{"a":"flash","b":[7]}"#.into()));
    }

    #[test]
    fn pieces_make_the_whole() {
        let json = json!({"command": "echo „über“", "n": [1, 2, 3]}).to_string();
        let shards = shards(&json);
        assert!(shards.len() > 3 && shards[0].is_empty());
        assert_eq!(shards.concat(), json);
        assert_eq!(pieces(PREFACE).collect::<String>(), PREFACE);
    }
}
