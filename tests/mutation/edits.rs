//! Every single edit of the listed kinds in a WGSL text, found by rule: a scanner over tokens that leaves out comments, types, attributes,
//! signatures and structs.

/// One edit of a shader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Counted from 1.
    pub line: usize,
    /// `<→<=#2`: what becomes what, and which of these on the line.
    pub what: String,
    /// The line without its indentation, and which of the lines that read so.
    pub text: String,
    pub nth_line: usize,
    start: usize,
    end: usize,
    with: String,
}

impl Edit {
    /// The shader's text with the edit made. Lines keep their numbers.
    pub fn apply(&self, text: &str) -> String {
        [&text[..self.start], &self.with, &text[self.end..]].concat()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Number,
    Symbol,
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    start: usize,
    text: &'a str,
    /// Part of a type, an attribute, a signature or a struct: not edited.
    fixed: bool,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// An operand may end here, so that an operator after it is binary.
    fn ends_operand(&self) -> bool {
        match self.kind {
            Kind::Word => !["return", "case"].contains(&self.text),
            Kind::Number => true,
            Kind::Symbol => [")", "]"].contains(&self.text),
        }
    }
}

/// Longest first.
const SYMBOLS: [&str; 22] =
    ["<<=", ">>=", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "->", "++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "_="];

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut all: Vec<Token> = Vec::new();
    // Open template lists: `<` of `vec4<f32>`.
    let mut templates = 0;
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        if rest.starts_with("/*") {
            at += rest.find("*/").map_or(rest.len(), |end| end + 2);
            continue;
        }
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let (kind, len) = if first.is_ascii_digit() {
            (Kind::Number, number_len(rest))
        } else if word(first) {
            (Kind::Word, rest.find(|c| !word(c)).unwrap_or(rest.len()))
        } else {
            let long = SYMBOLS.iter().find(|s| rest.starts_with(*s)).filter(|s| templates == 0 || !s.starts_with('>'));
            (Kind::Symbol, long.map_or(first.len_utf8(), |s| s.len()))
        };
        let symbol = &rest[..len];
        let opens = symbol == "<" && all.last().is_some_and(|t| takes_template(t.text));
        templates += usize::from(opens);
        all.push(Token { kind, start: at, text: symbol, fixed: templates > 0 });
        templates -= usize::from(templates > 0 && symbol == ">");
        at += len;
    }
    fix(&mut all);
    all
}

fn takes_template(word: &str) -> bool {
    ["var", "array", "atomic", "ptr", "bitcast"].contains(&word)
        || word.starts_with("vec")
        || word.starts_with("mat")
        || word.starts_with("coop_")
}

/// Digits, a point, an exponent with its sign, a suffix.
fn number_len(text: &str) -> usize {
    let hex = text.starts_with("0x");
    let mut last = ' ';
    let part = |c: &char| {
        let signed = !hex && "+-".contains(*c) && last == 'e';
        last = *c;
        c.is_ascii_alphanumeric() || *c == '.' || signed
    };
    text.chars().take_while(part).count()
}

/// Marks attributes, structs and the heads of functions.
fn fix(tokens: &mut [Token]) {
    let mut at = 0;
    while at < tokens.len() {
        let end = match tokens[at].text {
            "@" if tokens.get(at + 2).is_some_and(|t| t.text == "(") => closing(tokens, at + 2) + 1,
            "@" => at + 2,
            "struct" => tokens[at..].iter().position(|t| t.text == "{").map_or(tokens.len(), |open| closing(tokens, at + open) + 1),
            "fn" => tokens[at..].iter().position(|t| t.text == "{").map_or(tokens.len(), |open| at + open),
            _ => {
                at += 1;
                continue;
            }
        };
        let end = end.min(tokens.len());
        tokens[at..end].iter_mut().for_each(|token| token.fixed = true);
        at = end;
    }
}

/// Where the bracket that opens at `open` closes.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len() - 1
}

/// The members of `struct Params`: name and type.
fn params(text: &str) -> Vec<(&str, &str)> {
    let body = text.split_once("struct Params {").and_then(|(_, rest)| rest.split_once('}')).map_or("", |(body, _)| body);
    body.lines()
        .filter_map(|line| line.split("//").next().unwrap_or("").trim().strip_suffix(',')?.split_once(": "))
        .filter(|(name, _)| !name.starts_with("pad"))
        .collect()
}

/// All of them, in the order of the text.
pub fn edits(text: &str) -> Vec<Edit> {
    let tokens = tokens(text);
    let params = params(text);
    let mut found: Vec<(usize, usize, String, String)> = Vec::new();
    for at in 0..tokens.len() {
        if tokens[at].fixed {
            continue;
        }
        symbol(&tokens, at, &mut found);
        number(&tokens[at], &mut found);
        word(text, &tokens, at, &mut found);
        chain(text, &tokens, at, &params, &mut found);
        header(text, &tokens, at, &mut found);
        statement(text, &tokens, at, &mut found);
    }
    found.sort_by_key(|(start, end, ..)| (*start, *end));
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut edits: Vec<Edit> = Vec::new();
    for (start, end, what, with) in found {
        let line = text[..start].matches('\n').count();
        let nth = 1 + edits.iter().filter(|e| e.line == line + 1 && e.what.rsplit_once('#').is_some_and(|(w, _)| w == what)).count();
        let nth_line = lines[..=line].iter().filter(|other| **other == lines[line]).count();
        edits.push(Edit { line: line + 1, what: format!("{what}#{nth}"), text: lines[line].into(), nth_line, start, end, with });
    }
    edits
}

type Found = Vec<(usize, usize, String, String)>;

fn replace(token: &Token, with: &str, found: &mut Found) {
    found.push((token.start, token.end(), format!("{}→{with}", token.text), with.into()));
}

/// Comparisons moved by one, and each operator against its counterpart.
fn symbol(tokens: &[Token], at: usize, found: &mut Found) {
    const PAIRS: [(&str, &str); 13] = [
        ("<", "<="),
        (">", ">="),
        ("==", "!="),
        ("+", "-"),
        ("/", "%"),
        ("<<", ">>"),
        ("&", "|"),
        ("&&", "||"),
        ("+=", "-="),
        ("*=", "/="),
        ("&=", "|="),
        ("<<=", ">>="),
        ("++", "--"),
    ];
    let token = &tokens[at];
    if token.kind != Kind::Symbol {
        return;
    }
    let binary = at > 0 && tokens[at - 1].ends_operand();
    if !binary {
        if ["!", "~", "-"].contains(&token.text) {
            found.push((token.start, token.end(), format!("{}→", token.text), String::new()));
        }
        return;
    }
    let other = PAIRS.iter().find_map(|&(a, b)| if token.text == a { Some(b) } else { (token.text == b).then_some(a) });
    if let Some(other) = other {
        replace(token, other, found);
    }
}

/// One up and one down; a float halved.
fn number(token: &Token, found: &mut Found) {
    if token.kind != Kind::Number {
        return;
    }
    let hex = token.text.strip_prefix("0x");
    let float = hex.is_none() && token.text.contains(['.', 'e', 'f', 'h']);
    if float {
        let digits = token.text.trim_end_matches(['f', 'h']);
        let value: f64 = digits.parse().expect("a number");
        let changed = if value == 0.0 { 1.0 } else { value / 2.0 };
        // As WGSL writes it: a whole number keeps its point.
        replace(token, &format!("{changed:?}{}", &token.text[digits.len()..]), found);
        return;
    }
    let digits = hex.unwrap_or(token.text).trim_end_matches(['u', 'i']);
    let suffix = &token.text[token.text.len() - (hex.unwrap_or(token.text).len() - digits.len())..];
    let value = u32::from_str_radix(digits, if hex.is_some() { 16 } else { 10 }).expect("a number");
    for changed in [value.checked_add(1), value.checked_sub(1)].into_iter().flatten() {
        replace(token, &if hex.is_some() { format!("0x{changed:x}{suffix}") } else { format!("{changed}{suffix}") }, found);
    }
}

/// `true` and `false`, `min` and `max`, the arms of a `select`.
fn word(text: &str, tokens: &[Token], at: usize, found: &mut Found) {
    let token = &tokens[at];
    match token.text {
        "true" => replace(token, "false", found),
        "false" => replace(token, "true", found),
        "min" => replace(token, "max", found),
        "max" => replace(token, "min", found),
        "select" => {
            let mut commas = Vec::new();
            let (mut depth, end) = (0, closing(tokens, at + 1));
            for (i, inner) in tokens.iter().enumerate().take(end).skip(at + 2) {
                match inner.text {
                    "(" | "[" => depth += 1,
                    ")" | "]" => depth -= 1,
                    "," if depth == 0 && !inner.fixed => commas.push(i),
                    _ => {}
                }
            }
            let (first, second) = (tokens[at + 2].start..tokens[commas[0]].start, tokens[commas[0] + 1].start..tokens[commas[1]].start);
            let with = format!("{}{}{}", &text[second.clone()], &text[first.end..second.start], &text[first.clone()]);
            found.push((first.start, second.end, "select arms".into(), with));
        }
        _ => {}
    }
}

/// Strides, offsets and the like: a member of `params` or a component of a vector, zeroed or taken for its neighbour.
fn chain(text: &str, tokens: &[Token], at: usize, params: &[(&str, &str)], found: &mut Found) {
    let token = &tokens[at];
    if token.kind != Kind::Word || at > 0 && tokens[at - 1].text == "." {
        return;
    }
    let mut end = at;
    loop {
        match tokens.get(end + 1).map(|t| t.text) {
            Some(".") => end += 2,
            Some("[") => end = closing(tokens, end + 1),
            _ => break,
        }
    }
    let last = &tokens[end];
    let component = tokens[end - usize::from(end > 0)].text == "." && ["x", "y", "z", "w"].contains(&last.text);
    let member = (token.text == "params" && end > at).then(|| &tokens[at + 2]);
    let field = member.and_then(|member| params.iter().find(|(name, _)| *name == member.text));
    if !component && field.is_none()
        || tokens.get(end + 1).is_some_and(|next| next.text.ends_with('=') && !["==", "!=", "<=", ">="].contains(&next.text))
    {
        return;
    }
    let all = &text[token.start..last.end()];
    let zero = match field {
        // WGSL's zero value.
        Some((_, ty)) if end == at + 2 && (ty.starts_with("vec") || ty.starts_with("array")) => format!("{ty}()"),
        _ => "0".into(),
    };
    found.push((token.start, last.end(), format!("{all}→0"), zero));
    if component {
        let neighbour = ["y", "x", "y", "z"]["xyzw".find(last.text).expect("one of them")..][0];
        found.push((last.start, last.end(), format!("{all}→.{neighbour}"), neighbour.into()));
    }
    if let (Some(member), Some(&(name, ty))) = (member, field) {
        for other in neighbours(name, ty, params) {
            found.push((member.start, member.end(), format!("params.{name}→{other}"), other.into()));
        }
    }
}

/// What a member may be taken for: the next of its type with the same last word (another operand's), the next with the same first word
/// (another of the operand's own); without either the next of its type.
fn neighbours<'a>(name: &str, ty: &str, params: &[(&'a str, &str)]) -> Vec<&'a str> {
    let place = params.iter().position(|(other, _)| *other == name).expect("it is one of them");
    let others = || params[place + 1..].iter().chain(&params[..place]).filter(|(_, t)| *t == ty).map(|(other, _)| *other);
    let ends = |name: &str| name.rsplit('_').next().map(String::from);
    let begins = |name: &str| name.split('_').next().map(String::from);
    let across = others().find(|other| other.contains('_') && ends(other) == ends(name));
    let along = others().find(|other| other.contains('_') && begins(other) == begins(name));
    let mut all: Vec<&str> = across.into_iter().chain(along.filter(|_| across != along)).collect();
    if all.is_empty() {
        all.extend(others().next());
    }
    all
}

/// A loop that starts one later or steps one further. Literals are numbers' business.
fn header(text: &str, tokens: &[Token], at: usize, found: &mut Found) {
    if tokens[at].text != "for" {
        return;
    }
    let end = closing(tokens, at + 1);
    let parts: Vec<&[Token]> = tokens[at + 2..end].split(|t| t.text == ";").collect();
    for part in [parts[0], parts[2]] {
        let Some(equals) = part.iter().position(|t| ["=", "+=", "-=", "*=", "/="].contains(&t.text)) else {
            if let [_, step] = part
                && step.text == "++"
            {
                found.push((step.start, step.end(), "++→+=2".into(), " += 2".into()));
            }
            continue;
        };
        let value = &part[equals + 1..];
        if value.len() > 1 || value[0].kind != Kind::Number {
            let (start, end) = (value[0].start, value[value.len() - 1].end());
            found.push((start, end, format!("{}→+1", &text[start..end]), format!("{} + 1", &text[start..end])));
        }
    }
}

/// A statement dropped: a barrier, an assignment, a call, a return without a value.
fn statement(text: &str, tokens: &[Token], at: usize, found: &mut Found) {
    const OTHERS: [&str; 13] =
        ["let", "var", "const", "if", "else", "for", "while", "loop", "switch", "case", "default", "alias", "struct"];
    let token = &tokens[at];
    let begins = at > 0 && [";", "{", "}"].contains(&tokens[at - 1].text) && token.kind == Kind::Word && !OTHERS.contains(&token.text);
    if !begins {
        return;
    }
    // The middle of a loop's head is no statement.
    let line = &text[text[..token.start].rfind('\n').map_or(0, |at| at + 1)..token.start];
    if line.contains("for (") {
        return;
    }
    let Some(len) = tokens[at..].iter().position(|t| t.text == ";") else { return };
    if token.text == "return" && len > 1 {
        return;
    }
    let (start, end) = (token.start, tokens[at + len].end());
    let dropped = &text[start..end];
    let name = if dropped.ends_with("Barrier();") || token.text == "return" { dropped.trim_end_matches(';') } else { "statement" };
    found.push((start, end, format!("{name}→"), "\n".repeat(dropped.matches('\n').count())));
}

pub mod tests {
    //! The scanner's own tests, as trials.

    use libtest_mimic::{Failed, Trial};

    use super::edits;

    pub fn all() -> Vec<Trial> {
        vec![Trial::test("edits", every_kind), Trial::test("nothing_else", nothing_else), Trial::test("names", names)]
    }

    const TEXT: &str = "// a < b + 1
const SIDE: u32 = 8u; // c > d
struct Params {
    x_row: u32,
    x_col: u32,
    y_row: u32,
    len: u32,
}
@group(0) @binding(0) var<storage, read_write> out: array<vec4<f32>, 7>;
@compute @workgroup_size(SIDE, 1, 1)
fn main(@builtin(workgroup_id) group: vec3<u32>) -> array<vec2<f32>, 3> {
    if group.x >= params.len { /* 1 + 1 */
        return;
    }
    for (var i = lane; i < 4u; i += SIDE) {
        out[i] = select(min(a, -b), 0.0, !found) * 2.5e-3;
    }
    workgroupBarrier();
    out[0x1fu] = vec4<f32>(bitcast<f32>(a << 3u), x[params.x_row]);
}
";

    fn made() -> Vec<(usize, String, String)> {
        edits(TEXT)
            .into_iter()
            .map(|edit| {
                let after = edit.apply(TEXT);
                assert_eq!(after.lines().count(), TEXT.lines().count(), "lines keep their numbers");
                (edit.line, edit.what.clone(), after.lines().nth(edit.line - 1).unwrap_or_default().trim().to_string())
            })
            .collect()
    }

    fn every_kind() -> Result<(), Failed> {
        let made = made();
        for (line, what, after) in [
            (2, "8u→9u#1", "const SIDE: u32 = 9u; // c > d"),
            (2, "8u→7u#1", "const SIDE: u32 = 7u; // c > d"),
            (12, "group.x→0#1", "if 0 >= params.len { /* 1 + 1 */"),
            (12, "group.x→.y#1", "if group.y >= params.len { /* 1 + 1 */"),
            (12, ">=→>#1", "if group.x > params.len { /* 1 + 1 */"),
            (12, "params.len→0#1", "if group.x >= 0 { /* 1 + 1 */"),
            (12, "params.len→x_row#1", "if group.x >= params.x_row { /* 1 + 1 */"),
            (13, "return→#1", ""),
            (15, "lane→+1#1", "for (var i = lane + 1; i < 4u; i += SIDE) {"),
            (15, "<→<=#1", "for (var i = lane; i <= 4u; i += SIDE) {"),
            (15, "4u→5u#1", "for (var i = lane; i < 5u; i += SIDE) {"),
            (15, "4u→3u#1", "for (var i = lane; i < 3u; i += SIDE) {"),
            (15, "+=→-=#1", "for (var i = lane; i < 4u; i -= SIDE) {"),
            (15, "SIDE→+1#1", "for (var i = lane; i < 4u; i += SIDE + 1) {"),
            (16, "statement→#1", ""),
            (16, "select arms#1", "out[i] = select(0.0, min(a, -b), !found) * 2.5e-3;"),
            (16, "min→max#1", "out[i] = select(max(a, -b), 0.0, !found) * 2.5e-3;"),
            (16, "-→#1", "out[i] = select(min(a, b), 0.0, !found) * 2.5e-3;"),
            (16, "0.0→1.0#1", "out[i] = select(min(a, -b), 1.0, !found) * 2.5e-3;"),
            (16, "!→#1", "out[i] = select(min(a, -b), 0.0, found) * 2.5e-3;"),
            (16, "2.5e-3→0.00125#1", "out[i] = select(min(a, -b), 0.0, !found) * 0.00125;"),
            (18, "workgroupBarrier()→#1", ""),
            (19, "0x1fu→0x20u#1", "out[0x20u] = vec4<f32>(bitcast<f32>(a << 3u), x[params.x_row]);"),
            (19, "<<→>>#1", "out[0x1fu] = vec4<f32>(bitcast<f32>(a >> 3u), x[params.x_row]);"),
            (19, "3u→4u#1", "out[0x1fu] = vec4<f32>(bitcast<f32>(a << 4u), x[params.x_row]);"),
            (19, "params.x_row→y_row#1", "out[0x1fu] = vec4<f32>(bitcast<f32>(a << 3u), x[params.y_row]);"),
            (19, "params.x_row→x_col#1", "out[0x1fu] = vec4<f32>(bitcast<f32>(a << 3u), x[params.x_col]);"),
        ] {
            if !made.contains(&(line, what.into(), after.into())) {
                return Err(format!("line {line}: no `{what}` that gives `{after}` among {made:#?}").into());
            }
        }
        Ok(())
    }

    /// No comment, type, attribute, signature or struct is edited, and no edit changes nothing.
    fn nothing_else() -> Result<(), Failed> {
        let lines: Vec<usize> = made().iter().map(|(line, ..)| *line).collect();
        let fixed = (1..=20).filter(|line| ![2, 12, 13, 15, 16, 18, 19].contains(line) && lines.contains(line)).collect::<Vec<_>>();
        if !fixed.is_empty() {
            return Err(format!("edits in lines {fixed:?}").into());
        }
        match edits(TEXT).iter().find(|edit| edit.apply(TEXT) == TEXT) {
            Some(edit) => Err(format!("{edit:?} changes nothing").into()),
            None => Ok(()),
        }
    }

    /// Every edit has a name of its own, also where a line occurs twice.
    fn names() -> Result<(), Failed> {
        let text = "fn f() {\n    a[0u] = b[0u];\n    a[0u] = b[0u];\n}\n";
        let names: Vec<_> = edits(text).iter().map(|edit| (edit.what.clone(), edit.nth_line)).collect();
        let expected: Vec<_> =
            [1, 2].iter().flat_map(|&line| ["0u→1u#1", "statement→#1", "0u→1u#2"].map(|what| (what.to_string(), line))).collect();
        let mut sorted = [names, expected];
        sorted.iter_mut().for_each(|list| list.sort());
        if sorted[0] == sorted[1] { Ok(()) } else { Err(format!("{sorted:?}").into()) }
    }
}
