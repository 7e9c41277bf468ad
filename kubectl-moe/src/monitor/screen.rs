//! The terminal as a picture: it is taken over, and given back as it was, however the command ends.

use std::io;
use std::thread;

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, read};
use ratatui::{DefaultTerminal, Frame};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Hold,
    /// The terminal has another size.
    Redraw,
}

pub(super) struct Screen {
    terminal: DefaultTerminal,
    keys: UnboundedReceiver<Key>,
    /// Signals that end a program, which would leave the terminal as it is.
    signals: [Signal; 3],
}

impl Screen {
    /// Takes the terminal over. A panic gives it back before it is told.
    pub fn open() -> io::Result<Self> {
        let signals =
            [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
        let terminal = ratatui::try_init()?;
        let (sender, keys) = unbounded_channel();
        // It ends with the program: nothing wakes who waits for a key.
        let listen = move || {
            while let Ok(event) = read() {
                if meant(&event).is_some_and(|key| sender.send(key).is_err()) {
                    break;
                }
            }
        };
        let screen = Self { terminal, keys, signals };
        thread::Builder::new().name("keys".to_owned()).spawn(listen)?;
        Ok(screen)
    }

    pub fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(picture).map(drop)
    }

    /// What is wanted next. A terminal that is gone wants nothing more.
    pub async fn key(&mut self) -> Key {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            key = self.keys.recv() => key.unwrap_or(Key::Quit),
            _ = interrupt.recv() => Key::Quit,
            _ = terminate.recv() => Key::Quit,
            _ = hangup.recv() => Key::Quit,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn meant(event: &Event) -> Option<Key> {
    match event {
        Event::Resize(..) => Some(Key::Redraw),
        Event::Key(KeyEvent { code, modifiers, .. }) => match code {
            KeyCode::Char('c' | 'd') if modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
            KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
            KeyCode::Char(' ') => Some(Key::Hold),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_picture_says() {
        let pressed = |code, modifiers| meant(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(pressed(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Quit));
        assert_eq!(pressed(KeyCode::Esc, KeyModifiers::NONE), Some(Key::Quit));
        assert_eq!(pressed(KeyCode::Char(' '), KeyModifiers::NONE), Some(Key::Hold));
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(meant(&Event::Resize(80, 24)), Some(Key::Redraw));
    }
}
