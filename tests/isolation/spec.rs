//! Isolation specs: what two or more sessions do, step by step, and in which orders. In the spirit of PostgreSQL's isolationtester.
//!
//! ```text
//! # a comment
//! each level "READ COMMITTED" "SERIALIZABLE"        every permutation runs once for each value; `$level` in SQL stands for it
//! differs "why"                                     pgbee's outcome may be another one than PostgreSQL's, stated in expected/NAME.pgbee.out
//! silent                                            the server need not say who waits: a second without an answer does
//! listen                                            after each step idle sessions are given a moment to be told notifications
//! setup { CREATE TABLE t (a int) }                  before each permutation, one simple query a block
//! final { TABLE t }                                 after the sessions have rolled back what they left open
//! teardown { DROP TABLE t }
//! session s1
//! setup { BEGIN ISOLATION LEVEL $level }
//! step w1 { UPDATE t SET a = 2 }
//! step c1 { COMMIT }
//! session s2
//! ...
//! permutation w1 r2 c1 w2!                          `!`: the step is waited for until it has ended, by a timeout for instance
//! permutation all                                   every order in which each session keeps its own
//! ```
//!
//! What must stay true: a step's name is unique in its spec; braces inside SQL are balanced; a spec that cannot be read fails the test by name and line.

use std::collections::HashMap;
use std::path::Path;

/// One client of a spec.
#[derive(Debug, Default)]
pub struct Session {
    /// Its name, as in the output.
    pub name: String,
    /// What it sends before the first step.
    pub setup: Vec<String>,
    /// Names and texts of its steps, in the order of `permutation all`.
    pub steps: Vec<(String, String)>,
}

/// A step's place in an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Index of the session.
    pub session: usize,
    /// Index of the step in it.
    pub step: usize,
    /// Waited for until it has ended.
    pub to_the_end: bool,
}

/// Values of `each`, by name.
pub type Choice = Vec<(String, String)>;

/// A spec file.
#[derive(Debug, Default)]
pub struct Spec {
    /// The file's name without its ending.
    pub name: String,
    /// Statements before each permutation.
    pub setup: Vec<String>,
    /// Questions after each permutation.
    pub finals: Vec<String>,
    /// Statements after those.
    pub teardown: Vec<String>,
    /// The sessions.
    pub sessions: Vec<Session>,
    /// The orders.
    pub permutations: Vec<Vec<Turn>>,
    /// Why pgbee may answer otherwise than PostgreSQL.
    pub differs: Option<String>,
    /// Notifications are waited for.
    pub listen: bool,
    /// A step may wait without the server saying so.
    pub silent: bool,
    each: Vec<(String, Vec<String>)>,
}

/// A text and how far it was read.
struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn fail(&self, what: &str) -> ! {
        let line = self.text[..self.at].matches('\n').count() + 1;
        panic!("{}.spec, line {line}: {what}", self.name)
    }
    fn skip(&mut self) {
        loop {
            let rest = self.text[self.at..].trim_start();
            self.at = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }
    fn word(&mut self) -> Option<&'a str> {
        self.skip();
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| c.is_whitespace() || c == '{').unwrap_or(rest.len());
        self.at += end;
        (end > 0).then(|| &rest[..end])
    }
    fn block(&mut self) -> String {
        self.skip();
        if !self.text[self.at..].starts_with('{') {
            self.fail("a block in braces is missing");
        }
        let (mut depth, start) = (0, self.at + 1);
        for (offset, byte) in self.text.as_bytes()[self.at..].iter().enumerate() {
            depth += i32::from(*byte == b'{') - i32::from(*byte == b'}');
            if depth == 0 {
                let end = self.at + offset;
                self.at = end + 1;
                return self.text[start..end].split_whitespace().collect::<Vec<_>>().join(" ");
            }
        }
        self.fail("a block does not end")
    }
    /// What is left of the line.
    fn line(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.find('\n').unwrap_or(rest.len());
        self.at += end;
        rest[..end].trim()
    }
    /// `"a" "b"` on the rest of the line.
    fn strings(&mut self) -> Vec<String> {
        let parts: Vec<&str> = self.line().split('"').collect();
        if parts.len() < 3 || parts.len().is_multiple_of(2) {
            self.fail("quoted values are missing");
        }
        parts.iter().skip(1).step_by(2).map(|s| (*s).to_owned()).collect()
    }
}

impl Spec {
    /// Reads a file.
    ///
    /// # Panics
    /// If it breaks the form above.
    pub fn read(path: &Path) -> Spec {
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("the spec is text");
        Spec::parse(&name, &text)
    }
    /// The same from its text.
    pub fn parse(name: &str, text: &str) -> Spec {
        let mut spec = Spec { name: name.to_owned(), ..Spec::default() };
        let mut reader = Reader { name, text, at: 0 };
        let mut orders: Vec<String> = Vec::new();
        while let Some(word) = reader.word() {
            match word {
                "each" => {
                    let Some(variable) = reader.word() else { reader.fail("a name is missing") };
                    let values = reader.strings();
                    spec.each.push((variable.to_owned(), values));
                }
                "differs" => spec.differs = reader.strings().into_iter().next(),
                "listen" => spec.listen = true,
                "silent" => spec.silent = true,
                "setup" => {
                    let block = reader.block();
                    spec.sessions.last_mut().map_or(&mut spec.setup, |s| &mut s.setup).push(block);
                }
                "final" => spec.finals.push(reader.block()),
                "teardown" => spec.teardown.push(reader.block()),
                "session" => {
                    let Some(name) = reader.word() else { reader.fail("a name is missing") };
                    spec.sessions.push(Session { name: name.to_owned(), ..Session::default() });
                }
                "step" => {
                    let Some(step) = reader.word() else { reader.fail("a name is missing") };
                    if spec.find(step).is_some() {
                        reader.fail("this step is there already");
                    }
                    let block = reader.block();
                    let Some(session) = spec.sessions.last_mut() else { reader.fail("a step outside of a session") };
                    session.steps.push((step.to_owned(), block));
                }
                "permutation" => orders.push(reader.line().to_owned()),
                _ => reader.fail("an unknown word"),
            }
        }
        for order in orders {
            if order == "all" {
                spec.every_order(&mut vec![0; spec.sessions.len()], &mut Vec::new());
                continue;
            }
            let turns = order.split_whitespace().map(|word| {
                let (name, to_the_end) = word.strip_suffix('!').map_or((word, false), |name| (name, true));
                let (session, step) =
                    spec.find(name).unwrap_or_else(|| panic!("{}.spec has no step {name}", spec.name));
                Turn { session, step, to_the_end }
            });
            let turns = turns.collect();
            spec.permutations.push(turns);
        }
        assert!(!spec.permutations.is_empty(), "{name}.spec has no permutation");
        spec
    }
    fn find(&self, name: &str) -> Option<(usize, usize)> {
        let of = |s: &Session| s.steps.iter().position(|(step, _)| step == name);
        self.sessions.iter().enumerate().find_map(|(i, s)| Some((i, of(s)?)))
    }
    fn every_order(&mut self, done: &mut Vec<usize>, order: &mut Vec<Turn>) {
        let mut ended = true;
        for session in 0..done.len() {
            if done[session] < self.sessions[session].steps.len() {
                ended = false;
                order.push(Turn { session, step: done[session], to_the_end: false });
                done[session] += 1;
                self.every_order(done, order);
                done[session] -= 1;
                order.pop();
            }
        }
        if ended {
            self.permutations.push(order.clone());
        }
    }
    /// Every combination of the values of `each`; one empty one without any.
    pub fn choices(&self) -> Vec<Choice> {
        let mut choices: Vec<Choice> = vec![Vec::new()];
        for (name, values) in &self.each {
            let with = |choice: &Choice, value: &String| {
                let mut longer = choice.clone();
                longer.push((name.clone(), value.clone()));
                longer
            };
            choices = choices.iter().flat_map(|c| values.iter().map(move |v| with(c, v))).collect();
        }
        choices
    }
    /// The line that names a permutation in the expected output.
    pub fn title(&self, order: &[Turn], choice: &Choice) -> String {
        let mut title = "permutation".to_owned();
        for turn in order {
            title += &format!(
                " {}{}",
                self.sessions[turn.session].steps[turn.step].0,
                if turn.to_the_end { "!" } else { "" }
            );
        }
        for (name, value) in choice {
            title += &format!(" ({name} {value})");
        }
        title
    }
}

/// SQL with the chosen values in it.
pub fn chosen(sql: &str, choice: &Choice) -> String {
    choice.iter().fold(sql.to_owned(), |sql, (name, value)| sql.replace(&format!("${name}"), value))
}

/// The blocks of an expected output by their titles, more than one where more than one outcome is right; what stands before the first title belongs to none.
pub fn blocks(text: &str) -> HashMap<String, Vec<String>> {
    let mut blocks: HashMap<String, Vec<String>> = HashMap::new();
    let mut title = String::new();
    for line in text.lines() {
        if line.starts_with("permutation") {
            line.clone_into(&mut title);
            blocks.entry(title.clone()).or_default().push(String::new());
        } else if let Some(block) = blocks.get_mut(&title).and_then(|all| all.last_mut()) {
            block.push_str(line);
            block.push('\n');
        }
    }
    for block in blocks.values_mut().flatten() {
        block.truncate(block.trim_end().len());
    }
    blocks
}

#[test]
fn a_spec_is_read_as_written() {
    let text = "# c\neach level \"A B\" \"C\"\nsetup { SELECT '{1,{2}}' }\nsession s1\nsetup { BEGIN $level }\nstep a { x }\nstep b { y\n z }\n\
                session s2\nstep c { w }\npermutation all\npermutation a c! b\n";
    let spec = Spec::parse("t", text);
    assert_eq!(spec.setup, ["SELECT '{1,{2}}'"]);
    assert_eq!(spec.sessions[0].steps[1].1, "y z");
    assert_eq!(spec.permutations.len(), 4);
    let titles: Vec<String> = spec.permutations.iter().map(|p| spec.title(p, &spec.choices()[0])).collect();
    assert_eq!(titles[3], "permutation a c! b (level A B)");
    assert_eq!(
        titles[..3].iter().filter(|t| t.contains("a c b") || t.contains("c a b") || t.contains("a b c")).count(),
        3
    );
    assert_eq!(chosen(&spec.sessions[0].setup[0], &spec.choices()[1]), "BEGIN C");
    assert_eq!(blocks("x\npermutation a\n1\n2\n\npermutation b\n3\npermutation a\n4")["permutation a"], ["1\n2", "4"]);
}
