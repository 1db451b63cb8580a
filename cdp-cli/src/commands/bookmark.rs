//! `cdp bookmark add`, `list`, `lock`, `unlock` and `delete`.

use crate::{
    args::{BookmarkAddArguments, BookmarkCommand, BookmarkNameArguments, StoreArguments},
    exit::Outcome,
    interrupt::Interrupt,
    output::{self, BookmarkDocument, BookmarksDocument, Table},
    owner::{self, NewBookmarkRequest, Reply, Request},
};
use serde::Serialize;

/// Runs the command.
pub fn run(command: &BookmarkCommand) -> Outcome {
    match command {
        BookmarkCommand::Add(arguments) => add(arguments),
        BookmarkCommand::List(arguments) => list(arguments),
        BookmarkCommand::Lock(arguments) => {
            change(arguments, &Request::LockBookmark { name: arguments.name.clone(), locked: true }, "locked")
        }
        BookmarkCommand::Unlock(arguments) => change(
            arguments,
            &Request::LockBookmark { name: arguments.name.clone(), locked: false },
            "unlocked",
        ),
        BookmarkCommand::Delete(arguments) => {
            change(arguments, &Request::DeleteBookmark { name: arguments.name.clone() }, "deleted")
        }
    }
}

fn add(arguments: &BookmarkAddArguments) -> Outcome {
    let request = Request::AddBookmark(NewBookmarkRequest {
        name: arguments.name.clone(),
        kind: arguments.kind.to_string(),
        app: arguments.app.clone(),
        comment: arguments.comment.clone(),
        locked: arguments.lock,
        expires_ns: arguments.expires.map(|time| time.get()),
        at: arguments.at.as_ref().map(ToString::to_string),
        require_exact: arguments.require_exact,
    });
    let reply = owner::change(&arguments.store, &request, "bookmark", &Interrupt::default())?;
    match reply {
        Reply::Bookmark(bookmark) => output::result(arguments.output.json, &bookmark, |bookmark| {
            format!("bookmark {} at seq {} ({})\n", bookmark.name, bookmark.seq, bookmark.time)
        }),
        _ => done(&arguments.name, "added", arguments.output.json),
    }
}

fn change(arguments: &BookmarkNameArguments, request: &Request, what: &'static str) -> Outcome {
    let reply = owner::change(&arguments.store, request, "bookmark", &Interrupt::default())?;
    match reply {
        Reply::Bookmark(bookmark) => output::result(arguments.output.json, &bookmark, |bookmark| {
            format!("bookmark {} {what}\n", bookmark.name)
        }),
        _ => done(&arguments.name, what, arguments.output.json),
    }
}

fn done(name: &str, what: &'static str, json: bool) -> Outcome {
    #[derive(Serialize)]
    struct DoneDocument<'a> {
        name: &'a str,
        done: &'static str,
    }
    output::result(json, &DoneDocument { name, done: what }, |_| format!("bookmark {name} {what}\n"))
}

fn list(arguments: &StoreArguments) -> Outcome {
    let reader = owner::open_reader(&arguments.store)?;
    let bookmarks = reader.store.bookmarks();
    let document = BookmarksDocument { bookmarks: bookmarks.iter().map(BookmarkDocument::from).collect() };
    output::result(arguments.output.json, &document, |document| table(&document.bookmarks).text())?;
    reader.finish()
}

/// A table of bookmarks.
pub(super) fn table(bookmarks: &[BookmarkDocument]) -> Table {
    let mut table = Table::new(["bookmark", "kind", "seq", "time", "notes"]);
    for bookmark in bookmarks {
        let mut notes: Vec<String> = Vec::new();
        notes.extend(bookmark.locked.then(|| "locked".to_owned()));
        notes.extend(bookmark.expires.as_ref().map(|time| format!("expires {time}")));
        notes.extend(bookmark.app.as_ref().map(|app| format!("of {app}")));
        if !bookmark.inexact_volumes.is_empty() {
            notes.push(format!("inexact: {}", bookmark.inexact_volumes.join(" ")));
        }
        if let Some(across) = &bookmark.across {
            notes.push(format!("across {} stores, {}", across.stores.len(), across.state));
        }
        notes.extend(bookmark.comment.as_ref().map(|comment| format!("{comment:?}")));
        table.row([
            bookmark.name.clone(),
            bookmark.kind.clone(),
            bookmark.seq.to_string(),
            bookmark.time.clone(),
            notes.join(", "),
        ]);
    }
    table
}
