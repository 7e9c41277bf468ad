//! Names and times of what is being done.

use std::time::{Duration, Instant};

pub struct Stages {
    done: Vec<(String, Duration)>,
    current: Option<(String, Instant)>,
}

impl Stages {
    pub fn new() -> Self {
        Self { done: Vec::new(), current: None }
    }

    /// Ends the stage before and announces this one.
    pub fn begin(&mut self, name: &str) {
        self.end();
        println!("\n== {name}");
        self.current = Some((name.to_owned(), Instant::now()));
    }

    /// Says something about the current stage, with the time since it began.
    pub fn say(&self, what: &str) {
        let seconds = self.current.as_ref().map_or(0.0, |(_, began)| began.elapsed().as_secs_f64());
        println!("   {seconds:6.1} s  {what}");
    }

    /// Ends the last stage and prints the time of each.
    pub fn report(&mut self) {
        self.end();
        println!("\nTime of each stage");
        for (name, time) in &self.done {
            println!("   {:6.1} s  {name}", time.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|(_, time)| *time).sum();
        println!("   {:6.1} s  in all", total.as_secs_f64());
    }

    fn end(&mut self) {
        if let Some((name, began)) = self.current.take() {
            self.done.push((name, began.elapsed()));
        }
    }
}
