//! The expression language of `when: <expression>` and `<< expression >>`.
//!
//! Source: <https://github.com/CircleCI-Public/expr>

use std::sync::Arc;

use regex::Regex;

use crate::pattern::full_match;
use crate::value::Value;

/// A parsed expression.
#[derive(Clone, Debug)]
pub(crate) enum Expression {
    Literal(Value),
    Pattern(Arc<Regex>),
    Name {
        name: Arc<str>,
        at: usize,
    },
    Not(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Binary {
        operator: Operator,
        at: usize,
        left: Box<Expression>,
        right: Box<Expression>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    StartsWith,
    Contains,
    Matches,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

impl Operator {
    fn lexeme(self) -> &'static str {
        match self {
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
            Operator::StartsWith => "starts-with",
            Operator::Contains => "contains",
            Operator::Matches => "matches",
            Operator::Greater => ">",
            Operator::GreaterEqual => ">=",
            Operator::Less => "<",
            Operator::LessEqual => "<=",
        }
    }
}

/// Why an expression cannot be parsed or evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExpressionError {
    pub(crate) kind: ErrorKind,
    /// The text that is wrong. Empty at the end of the expression.
    pub(crate) lexeme: String,
    /// The byte offset of that text.
    pub(crate) at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    UnexpectedCharacter,
    IncompleteEquals,
    UnterminatedString,
    UnterminatedPattern,
    InvalidPattern,
    InvalidPatternCharacter,
    InvalidNumericLiteral,
    ExpectedExpression,
    ExpectedRightParen,
    UnexpectedAdditionalInput,
    UnknownBuiltinFunction,
    TooDeep,
    ExpectedNumericOperand,
    ExpectedStringOperand,
    ExpectedPatternOperand,
    UnknownVariable,
}

impl ExpressionError {
    fn new(kind: ErrorKind, lexeme: impl Into<String>, at: usize) -> ExpressionError {
        ExpressionError {
            kind,
            lexeme: lexeme.into(),
            at,
        }
    }

    /// The message, in CircleCI's words where they are known.
    pub(crate) fn message(&self) -> String {
        let lexeme = &self.lexeme;
        match self.kind {
            ErrorKind::UnexpectedCharacter => format!("Unexpected character '{lexeme}'"),
            ErrorKind::IncompleteEquals => "Expected '==' for a comparison".to_owned(),
            ErrorKind::UnterminatedString => "Unterminated string".to_owned(),
            ErrorKind::UnterminatedPattern => "Unterminated pattern".to_owned(),
            ErrorKind::InvalidPattern => "Invalid regular expression".to_owned(),
            ErrorKind::InvalidPatternCharacter => format!("Invalid character '{lexeme}' in pattern"),
            ErrorKind::InvalidNumericLiteral => "Invalid numeric literal".to_owned(),
            ErrorKind::ExpectedExpression if lexeme.is_empty() => {
                "Expected expression, found end of expression".to_owned()
            }
            ErrorKind::ExpectedExpression => format!("Expected expression, found \"{lexeme}\""),
            ErrorKind::ExpectedRightParen => "Expected ')' after expression".to_owned(),
            ErrorKind::UnexpectedAdditionalInput => format!("Unexpected additional input \"{lexeme}\""),
            ErrorKind::UnknownBuiltinFunction => format!("Unknown operator \"{lexeme}\""),
            ErrorKind::TooDeep => "Expression is nested too deeply".to_owned(),
            ErrorKind::ExpectedNumericOperand => format!("{lexeme} needs numbers on both sides"),
            ErrorKind::ExpectedStringOperand => format!("{lexeme} needs text"),
            ErrorKind::ExpectedPatternOperand => format!("{lexeme} needs a /pattern/ on its right"),
            ErrorKind::UnknownVariable => format!("{lexeme} is not a known value"),
        }
    }
}

#[derive(Clone, Debug)]
enum Token {
    Literal(Value),
    Pattern(Arc<Regex>),
    Name,
    And,
    Or,
    Not,
    Operator(Operator),
    Open,
    Close,
    End,
}

struct Spanned {
    token: Token,
    start: usize,
    end: usize,
}

fn scan(text: &str) -> Result<Vec<Spanned>, ExpressionError> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let byte = bytes[at];
        let next = bytes.get(at + 1).copied();
        let two = |operator: Operator| (Token::Operator(operator), 2);
        let (token, length) = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'(' => (Token::Open, 1),
            b')' => (Token::Close, 1),
            b'=' if next == Some(b'=') => two(Operator::Equal),
            b'=' => {
                let lexeme: String = text[at + 1..].chars().take(1).collect();
                return Err(ExpressionError::new(ErrorKind::IncompleteEquals, lexeme, at + 1));
            }
            b'!' if next == Some(b'=') => two(Operator::NotEqual),
            b'!' => (Token::Not, 1),
            b'>' if next == Some(b'=') => two(Operator::GreaterEqual),
            b'>' => (Token::Operator(Operator::Greater), 1),
            b'<' if next == Some(b'=') => two(Operator::LessEqual),
            b'<' => (Token::Operator(Operator::Less), 1),
            b'"' => string(text, at)?,
            b'/' => pattern(text, at)?,
            b'0'..=b'9' => {
                let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let value = text[at..at + length]
                    .parse()
                    .map_err(|_| ExpressionError::new(ErrorKind::InvalidNumericLiteral, &text[at..at + 1], at))?;
                (Token::Literal(Value::Int(value)), length)
            }
            byte if byte.is_ascii_alphabetic() => word(text, at),
            _ => {
                let character: String = text[at..].chars().take(1).collect();
                return Err(ExpressionError::new(ErrorKind::UnexpectedCharacter, character, at));
            }
        };
        at += length;
        tokens.push(Spanned { token, start, end: at });
    }
    tokens.push(Spanned {
        token: Token::End,
        start: text.len(),
        end: text.len(),
    });
    Ok(tokens)
}

fn word(text: &str, start: usize) -> (Token, usize) {
    let bytes = text.as_bytes();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let mut at = start;
    while at < bytes.len() && is_word(bytes[at]) {
        at += 1;
    }
    while bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(|byte| is_word(*byte)) {
        at += 1;
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
    }
    if bytes.get(at) == Some(&b'?') {
        at += 1;
    }
    let token = match &text[start..at] {
        "and" | "AND" => Token::And,
        "or" | "OR" => Token::Or,
        "not" => Token::Not,
        "true" => Token::Literal(Value::Bool(true)),
        "false" => Token::Literal(Value::Bool(false)),
        "starts-with" => Token::Operator(Operator::StartsWith),
        "contains" => Token::Operator(Operator::Contains),
        "matches" => Token::Operator(Operator::Matches),
        _ => Token::Name,
    };
    (token, at - start)
}

fn string(text: &str, start: usize) -> Result<(Token, usize), ExpressionError> {
    let mut value = String::new();
    let mut escaped = false;
    for (offset, character) in text[start + 1..].char_indices() {
        match character {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return Ok((Token::Literal(Value::Text(value.into())), offset + 2)),
            character => {
                if escaped && character != '"' && character != '\\' {
                    value.push('\\');
                }
                escaped = false;
                value.push(character);
            }
        }
    }
    Err(ExpressionError::new(ErrorKind::UnterminatedString, "\"", start))
}

const MAX_PATTERN: usize = 256;

fn pattern(text: &str, start: usize) -> Result<(Token, usize), ExpressionError> {
    let mut value = String::new();
    let mut characters = text[start + 1..].char_indices().peekable();
    while let Some((offset, character)) = characters.next() {
        let at = start + 1 + offset;
        match character {
            '/' => {
                let invalid = || ExpressionError::new(ErrorKind::InvalidPattern, "/", start);
                if value.len() > MAX_PATTERN {
                    return Err(invalid());
                }
                let regex = full_match(&value).ok_or_else(invalid)?;
                return Ok((Token::Pattern(Arc::new(regex)), offset + 2));
            }
            '\\' => match characters.next() {
                Some((_, '/')) => value.push('/'),
                Some((_, 'u')) => return Err(ExpressionError::new(ErrorKind::InvalidPatternCharacter, "\\", at)),
                Some((_, 'x')) if characters.peek().is_some_and(|(_, next)| *next == '{') => {
                    return Err(ExpressionError::new(ErrorKind::InvalidPatternCharacter, "\\", at));
                }
                Some((_, next)) if next.is_ascii() => value.extend(['\\', next]),
                Some((offset, next)) => {
                    let at = start + 1 + offset;
                    return Err(ExpressionError::new(ErrorKind::InvalidPatternCharacter, next, at));
                }
                None => break,
            },
            character if !character.is_ascii() => {
                return Err(ExpressionError::new(ErrorKind::InvalidPatternCharacter, character, at));
            }
            character => value.push(character),
        }
    }
    Err(ExpressionError::new(ErrorKind::UnterminatedPattern, "/", start))
}

const MAX_DEPTH: usize = 100;

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
}

/// Parses an expression.
pub(crate) fn parse(text: &str) -> Result<Expression, ExpressionError> {
    let mut parser = Parser {
        text,
        tokens: scan(text)?,
        at: 0,
        depth: 0,
    };
    let expression = parser.or()?;
    match parser.peek() {
        Token::End => Ok(expression),
        _ => Err(parser.error(ErrorKind::UnexpectedAdditionalInput)),
    }
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn start(&self) -> usize {
        self.tokens[self.at].start
    }

    fn error(&self, kind: ErrorKind) -> ExpressionError {
        let token = &self.tokens[self.at];
        ExpressionError::new(kind, &self.text[token.start..token.end], token.start)
    }

    fn or(&mut self) -> Result<Expression, ExpressionError> {
        let mut left = self.and()?;
        while matches!(self.peek(), Token::Or) {
            self.at += 1;
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expression, ExpressionError> {
        let mut left = self.equality()?;
        while matches!(self.peek(), Token::And) {
            self.at += 1;
            left = Expression::And(Box::new(left), Box::new(self.equality()?));
        }
        Ok(left)
    }

    fn equality(&mut self) -> Result<Expression, ExpressionError> {
        let mut left = self.comparison()?;
        loop {
            let operator = match self.peek() {
                Token::Operator(
                    operator @ (Operator::Equal
                    | Operator::NotEqual
                    | Operator::StartsWith
                    | Operator::Contains
                    | Operator::Matches),
                ) => *operator,
                // A word between two operands was probably meant as an operator.
                Token::Name
                    if matches!(
                        self.tokens.get(self.at + 1).map(|next| &next.token),
                        Some(Token::Name | Token::Literal(_) | Token::Pattern(_))
                    ) =>
                {
                    return Err(self.error(ErrorKind::UnknownBuiltinFunction));
                }
                _ => return Ok(left),
            };
            let at = self.start();
            self.at += 1;
            let right = self.comparison()?;
            left = Expression::Binary {
                operator,
                at,
                left: Box::new(left),
                right: Box::new(right),
            };
        }
    }

    fn comparison(&mut self) -> Result<Expression, ExpressionError> {
        let mut left = self.unary()?;
        while let Token::Operator(
            operator @ (Operator::Greater | Operator::GreaterEqual | Operator::Less | Operator::LessEqual),
        ) = self.peek()
        {
            let operator = *operator;
            let at = self.start();
            self.at += 1;
            let right = self.unary()?;
            left = Expression::Binary {
                operator,
                at,
                left: Box::new(left),
                right: Box::new(right),
            };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression, ExpressionError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error(ErrorKind::TooDeep));
        }
        self.depth += 1;
        let expression = match self.peek() {
            Token::Not => {
                self.at += 1;
                self.unary().map(|inner| Expression::Not(Box::new(inner)))
            }
            _ => self.primary(),
        };
        self.depth -= 1;
        expression
    }

    fn primary(&mut self) -> Result<Expression, ExpressionError> {
        let expression = match self.peek() {
            Token::Literal(value) => Expression::Literal(value.clone()),
            Token::Pattern(regex) => Expression::Pattern(regex.clone()),
            Token::Name => {
                let token = &self.tokens[self.at];
                Expression::Name {
                    name: self.text[token.start..token.end].into(),
                    at: token.start,
                }
            }
            Token::Open => {
                self.at += 1;
                let inner = self.or()?;
                if !matches!(self.peek(), Token::Close) {
                    return Err(self.error(ErrorKind::ExpectedRightParen));
                }
                inner
            }
            _ => return Err(self.error(ErrorKind::ExpectedExpression)),
        };
        self.at += 1;
        Ok(expression)
    }
}

impl Expression {
    /// Evaluates the expression. `lookup` returns `None` for an unknown name, and null for a name without a value.
    pub(crate) fn evaluate(&self, lookup: &mut dyn FnMut(&str) -> Option<Value>) -> Result<Value, ExpressionError> {
        // A chain such as `a or b or c …` nests to the left and may be long, so it is evaluated in a loop.
        match self {
            Expression::Literal(value) => Ok(value.clone()),
            Expression::Pattern(regex) => Ok(Value::Pattern(regex.clone())),
            Expression::Name { name, at } => {
                lookup(name).ok_or_else(|| ExpressionError::new(ErrorKind::UnknownVariable, &**name, *at))
            }
            Expression::Not(inner) => Ok(Value::Bool(!inner.evaluate(lookup)?.truthy())),
            Expression::And(..) | Expression::Or(..) | Expression::Binary { .. } => self.evaluate_chain(lookup),
        }
    }

    fn evaluate_chain(&self, lookup: &mut dyn FnMut(&str) -> Option<Value>) -> Result<Value, ExpressionError> {
        let mut chain = Vec::new();
        let mut first = self;
        while let Expression::And(left, _) | Expression::Or(left, _) | Expression::Binary { left, .. } = first {
            chain.push(first);
            first = left;
        }
        let mut value = first.evaluate(lookup)?;
        for link in chain.into_iter().rev() {
            value = match link {
                Expression::And(_, right) if value.truthy() => right.evaluate(lookup)?,
                Expression::Or(_, right) if !value.truthy() => right.evaluate(lookup)?,
                Expression::Binary {
                    operator, at, right, ..
                } => apply(*operator, *at, value, right.evaluate(lookup)?)?,
                _ => value,
            };
        }
        Ok(value)
    }

    /// Collects the names in the expression in order, with their byte offsets.
    pub(crate) fn names(&self, found: &mut Vec<(Arc<str>, usize)>) {
        match self {
            Expression::Literal(_) | Expression::Pattern(_) => {}
            Expression::Name { name, at } => found.push((name.clone(), *at)),
            Expression::Not(inner) => inner.names(found),
            Expression::And(..) | Expression::Or(..) | Expression::Binary { .. } => {
                let mut rights = Vec::new();
                let mut first = self;
                while let Expression::And(left, right)
                | Expression::Or(left, right)
                | Expression::Binary { left, right, .. } = first
                {
                    rights.push(right);
                    first = left;
                }
                first.names(found);
                rights.into_iter().rev().for_each(|right| right.names(found));
            }
        }
    }
}

impl Drop for Expression {
    /// Takes a chain apart before it is dropped. Dropping a long chain recursively would overflow the stack.
    fn drop(&mut self) {
        let mut pending = Vec::new();
        let take = |expression: &mut Expression, pending: &mut Vec<Box<Expression>>| {
            if let Expression::And(left, _) | Expression::Or(left, _) | Expression::Binary { left, .. } = expression
                && matches!(
                    **left,
                    Expression::And(..) | Expression::Or(..) | Expression::Binary { .. }
                )
            {
                pending.push(std::mem::replace(left, Box::new(Expression::Literal(Value::Null))));
            }
        };
        take(self, &mut pending);
        while let Some(mut expression) = pending.pop() {
            take(&mut expression, &mut pending);
        }
    }
}

fn apply(operator: Operator, at: usize, left: Value, right: Value) -> Result<Value, ExpressionError> {
    let error = |kind| ExpressionError::new(kind, operator.lexeme(), at);
    if matches!(left, Value::Null) || matches!(right, Value::Null) {
        return Ok(Value::Null);
    }
    Ok(Value::Bool(match operator {
        Operator::Equal => left == right,
        Operator::NotEqual => left != right,
        Operator::Greater | Operator::GreaterEqual | Operator::Less | Operator::LessEqual => {
            let (Some(left), Some(right)) = (left.number(), right.number()) else {
                return Err(error(ErrorKind::ExpectedNumericOperand));
            };
            match operator {
                Operator::Greater => left > right,
                Operator::GreaterEqual => left >= right,
                Operator::Less => left < right,
                _ => left <= right,
            }
        }
        Operator::StartsWith | Operator::Contains | Operator::Matches => {
            let Some(text) = left.as_text() else {
                return Err(error(ErrorKind::ExpectedStringOperand));
            };
            match (operator, &right) {
                (Operator::Matches, Value::Pattern(regex)) => regex.is_match(text),
                (Operator::Matches, _) => return Err(error(ErrorKind::ExpectedPatternOperand)),
                (operator, right) => {
                    let Some(part) = right.as_text() else {
                        return Err(error(ErrorKind::ExpectedStringOperand));
                    };
                    if operator == Operator::Contains {
                        text.contains(part)
                    } else {
                        text.starts_with(part)
                    }
                }
            }
        }
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::Value as Json;
    use std::path::Path;

    fn value_of(json: &Json) -> Value {
        Value::of_json(json).unwrap_or(Value::Null)
    }

    fn evaluate(text: &str, variables: &Json) -> Result<Value, ExpressionError> {
        parse(text)?.evaluate(&mut |name| variables.get(name).map(value_of))
    }

    #[test]
    fn operators_have_the_documented_precedence_and_meaning() {
        let check = |text: &str, expected: Json| {
            let variables = serde_json::json!({"a": 5, "b": "main", "c": true, "d": null});
            assert_eq!(evaluate(text, &variables).unwrap(), value_of(&expected), "{text}");
        };
        check("a == 5 and not (b == \"x\" or false)", true.into());
        check("a > 4 and a <= 5", true.into());
        check("b starts-with \"ma\"", true.into());
        check("not d and c", true.into());
        check("b", "main".into());
    }

    #[test]
    fn errors_know_their_offset() {
        let check = |text: &str, message: &str, at: usize| {
            let error = evaluate(text, &Json::Null).unwrap_err();
            assert_eq!((error.message().as_str(), error.at), (message, at), "{text}");
        };
        check("1 and and 2", "Expected expression, found \"and\"", 6);
        check("1 & 2", "Unexpected character '&'", 2);
    }

    /// The cases of CircleCI's own tests, if they are beside the checkout.
    #[test]
    fn circlecis_own_cases_pass() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/circleci/oracle/expressions/cases.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("SKIPPED: there is no `{}`", path.display());
            return;
        };
        let cases: Vec<Json> = serde_json::from_str(&text).unwrap();
        let mut wrong = Vec::new();
        for case in &cases {
            let text = case["expression"].as_str().unwrap();
            match (evaluate(text, &case["env"]), case.get("error")) {
                (Ok(Value::Pattern(_)), None) if case["expected"].get("pattern").is_some() => {}
                (Ok(value), None) => {
                    if value != value_of(&case["expected"]) {
                        wrong.push(format!("{text}: {value:?} is not {}", case["expected"]));
                    }
                }
                (Err(error), Some(expected)) => {
                    let lexeme = expected["lexeme"].as_str().unwrap_or_default();
                    let at = expected["charPos"].as_u64();
                    if lexeme != error.lexeme || at.is_some_and(|at| at != error.at as u64) {
                        wrong.push(format!("{text}: {error:?} is not {expected}"));
                    }
                }
                (got, _) => wrong.push(format!("{text}: {got:?} is not {case}")),
            }
        }
        println!("expressions: read {} cases", cases.len());
        assert!(
            wrong.is_empty(),
            "{} of {}:\n{}",
            wrong.len(),
            cases.len(),
            wrong.join("\n")
        );
    }
}
