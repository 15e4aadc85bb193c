//! The outbox against a plain list of lines, each with its tag and how much of it was consumed.

use std::collections::VecDeque;

use mcp_tcp_proxy::buffers::budget::BufferBudget;
use mcp_tcp_proxy::buffers::outbox::{Edit, Outbox};

use crate::program::Program;

/// More would only be slow.
const MAX_STEPS: usize = 2_000;
const MAX_BYTES: usize = 1 << 20;

/// The input is a program of steps.
pub(crate) fn outbox(input: &[u8]) {
    let mut program = Program(input);
    let mut world = World {
        outbox: Outbox::default(),
        model: Model::default(),
        memory: BufferBudget::new(0),
        lines: 0,
    };
    for _ in 0..MAX_STEPS {
        if program.is_over() {
            break;
        }
        world.step(&mut program);
        world.check();
    }
    world.take(usize::MAX);
    world.check();
    assert_eq!(world.outbox.capacity(), 0, "an empty outbox holds nothing");
}

struct World {
    outbox: Outbox<usize>,
    model: Model,
    memory: BufferBudget,
    lines: usize,
}

#[derive(Default)]
struct Model {
    lines: VecDeque<ModelLine>,
}

struct ModelLine {
    text: Vec<u8>,
    tag: Option<usize>,
    taken: usize,
}

impl World {
    fn step(&mut self, program: &mut Program<'_>) {
        match program.byte() % 8 {
            0 | 1 if self.outbox.len() < MAX_BYTES => {
                let (text, tag) = self.line(program);
                let line = &text[..text.len() - 1];
                self.outbox.push(line, tag, &mut self.memory);
                self.model.push(text, tag);
            }
            2 if self.outbox.len() < MAX_BYTES => {
                let (text, tag) = self.line(program);
                self.outbox.push_buffer(text.clone(), tag, &mut self.memory);
                self.model.push(text, tag);
            }
            3 | 4 => self.take(program.number(18) as usize),
            5 => {
                let keeps_odd = program.flag();
                let keep = |tag: usize| (tag % 2 == 1) == keeps_odd;
                self.outbox.retain_unstarted(|tag| keep(*tag));
                self.model
                    .lines
                    .retain(|line| line.taken == 0 && line.tag.is_none_or(keep));
            }
            6 => self.append(program),
            7 if program.flag() => {
                // The odd ones become others, or go.
                let replaces = program.flag();
                let edit = |line: &[u8], tag: usize| match tag % 2 {
                    0 => Edit::Keep(tag),
                    _ if replaces => Edit::Replace([b"e", line].concat(), tag),
                    _ => Edit::Drop,
                };
                self.outbox.edit_unstarted(edit, &mut self.memory);
                self.model.edit_odd(replaces);
            }
            _ if program.byte().is_multiple_of(16) => {
                self.outbox.clear();
                self.model.lines.clear();
            }
            _ => {}
        }
    }

    /// A line with its line end, unlike the one before, and its tag.
    fn line(&mut self, program: &mut Program<'_>) -> (Vec<u8>, Option<usize>) {
        self.lines += 1;
        let tag = program.flag().then_some(self.lines);
        let len = program.number(17) as usize;
        let mut text = vec![b'a' + (self.lines % 26) as u8; len];
        text.push(b'\n');
        (text, tag)
    }

    fn take(&mut self, count: usize) {
        let count = count.min(self.outbox.len());
        self.outbox.consume(count, &mut self.memory);
        let started: Vec<usize> = std::iter::from_fn(|| self.outbox.next_started()).collect();
        assert_eq!(started, self.model.take(count));
    }

    /// Appends some lines, after others before them in their queue were consumed whole.
    fn append(&mut self, program: &mut Program<'_>) {
        let mut other = Outbox::default();
        let (gone, stay) = (program.byte() % 3, program.byte() % 4);
        for _ in 0..gone {
            let (text, tag) = self.line(program);
            other.push_buffer(text, tag, &mut self.memory);
        }
        let taken = other.len();
        let mut lines = Vec::new();
        for _ in 0..stay {
            let (text, tag) = self.line(program);
            other.push(&text[..text.len() - 1], tag, &mut self.memory);
            lines.push((text, tag));
        }
        other.consume(taken, &mut self.memory);
        while other.next_started().is_some() {}
        assert!(self.outbox.append(other, &mut self.memory).is_none());
        for (text, tag) in lines {
            self.model.push(text, tag);
        }
    }

    fn check(&self) {
        let mut waiting = self.outbox.waiting();
        assert_eq!(self.outbox.len(), waiting.len());
        assert_eq!(self.outbox.is_empty(), waiting.is_empty());
        assert!(!waiting.is_empty() || self.outbox.capacity() == 0);
        for line in &self.model.lines {
            let rest = waiting.strip_prefix(&line.text[line.taken..]);
            waiting = rest.expect("the lines that wait");
        }
        assert_eq!(waiting, b"");
        let tagged = || self.model.lines.iter().filter(|line| line.tag.is_some());
        assert!(self.outbox.tags().eq(tagged().flat_map(|line| &line.tag)));
        let bytes: usize = tagged().map(|line| line.text.len()).sum();
        assert_eq!(self.outbox.tagged_bytes(), bytes);
        let first = self.model.lines.front();
        let first_tag = first.and_then(|line| line.tag.as_ref());
        assert_eq!(self.outbox.first_tag(), first_tag);
    }
}

impl Model {
    fn push(&mut self, text: Vec<u8>, tag: Option<usize>) {
        self.lines.push_back(ModelLine {
            text,
            tag,
            taken: 0,
        });
    }

    fn edit_odd(&mut self, replaces: bool) {
        let is_odd = |line: &ModelLine| line.tag.is_some_and(|tag| tag % 2 == 1);
        if replaces {
            let odd = self.lines.iter_mut().filter(|line| is_odd(line));
            odd.for_each(|line| line.text.insert(0, b'e'));
        } else {
            self.lines.retain(|line| !is_odd(line));
        }
    }

    /// Returns the tags of lines that started by that.
    fn take(&mut self, mut count: usize) -> Vec<usize> {
        let mut started = Vec::new();
        while count > 0 {
            let line = self.lines.front_mut().unwrap();
            started.extend(line.tag.take());
            let step = count.min(line.text.len() - line.taken);
            line.taken += step;
            count -= step;
            if line.taken == line.text.len() {
                self.lines.pop_front();
            }
        }
        started
    }
}
