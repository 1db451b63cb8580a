//! Reads a run: one lookup is one descent through cached pages; a walk goes on from where it is.
//!
//! Extents are opened when they are first needed, and once. Inner pages stay in memory once they were needed (see `tree`), so
//! that a lookup costs one page of the cache.
//!
//! Bytes that are not what was written become `Damaged`, naming the extent, the bytes and the seqs that the piece covers; so
//! does an extent that is missing or ends early. Nothing is remembered of it: the next read tries again.

use super::{
    Entry, Key, PieceMeta, RunMeta,
    cache::{HeldPage, LeafGuard, PageCache, is_gone, read_failed},
    pack::{pack_key, unpack},
    tree::Node,
    walk::Walk,
};
use crate::{
    error::{Damage, Error, Result},
    format::{
        leaf::Leaf,
        packed::{PackedEntry, PackedKey},
        page::{InnerBuilder, PAGE_BYTES, Page, PageIdentity},
        trailer::{HEIGHT_MAX, Trailer},
    },
    io::{Extent, Storage},
    units::{ExtentId, Seq},
};
use std::{
    fmt, io,
    sync::{Arc, OnceLock},
};

/// What the runs of a store have in common.
#[derive(Clone)]
pub struct RunContext {
    /// Id of the store.
    pub store: u64,
    /// Where the extents are.
    pub storage: Arc<dyn Storage>,
    /// The cache of pages.
    pub pages: Arc<PageCache>,
}

/// An open run.
pub struct Run {
    meta: RunMeta,
    pub(super) context: RunContext,
    pieces: Vec<OpenPiece>,
}

#[derive(Default)]
struct OpenPiece {
    last: PackedKey,
    extent: OnceLock<Arc<dyn Extent>>,
    top: OnceLock<Arc<Node>>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("meta", &self.meta).finish_non_exhaustive()
    }
}

impl Run {
    /// A run of a store. Reads nothing yet.
    pub fn new(meta: RunMeta, context: RunContext) -> Self {
        let pieces =
            meta.pieces.iter().map(|piece| OpenPiece { last: pack_key(&piece.last), ..OpenPiece::default() });
        Self { pieces: pieces.collect(), meta, context }
    }

    /// What is known of it without reading.
    pub fn meta(&self) -> &RunMeta {
        &self.meta
    }

    /// Id of its store.
    pub fn store(&self) -> u64 {
        self.context.store
    }

    /// A walk over it, before the first entry; go somewhere with [`Cursor::seek`].
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor::new(self)
    }

    /// Reads the trailer of the piece whose last page is `page`, from which the piece is known when the manifest is not.
    ///
    /// # Errors
    /// `Damaged` when it is not a trailer of this place; `Io`.
    pub fn read_trailer(store: u64, id: ExtentId, extent: &dyn Extent, page: u32) -> Result<PieceMeta> {
        let damaged = |what: &str| {
            Error::Damaged(Box::new(Damage {
                extent: id,
                file: format!("extent {id}"),
                offset: u64::from(page) * PAGE_BYTES,
                length: PAGE_BYTES,
                from_seq: Seq::ZERO,
                to_seq: Seq::MAX,
                what: what.to_owned(),
            }))
        };
        let bytes = PageCache::new(0).read(extent, page).map_err(|source| {
            if is_gone(&source) {
                damaged("index page that is missing")
            } else {
                read_failed(format!("extent {id}"), source)
            }
        })?;
        let trailer = Trailer::parse(&bytes, &PageIdentity { store, extent: id, page }).map_err(damaged)?;
        let offset = u64::from(page - (trailer.pages - 1)) * PAGE_BYTES;
        Ok(PieceMeta::of(&trailer, id, offset))
    }

    pub(super) fn identity(&self, piece: usize, page: u32) -> PageIdentity {
        PageIdentity { store: self.context.store, extent: self.meta.pieces[piece].extent, page }
    }

    /// The error that names a damaged page.
    pub(super) fn damaged(&self, piece: usize, page: u32, what: &str) -> Error {
        let meta = &self.meta.pieces[piece];
        Error::Damaged(Box::new(Damage {
            extent: meta.extent,
            file: self.context.storage.describe(meta.extent),
            offset: u64::from(page) * PAGE_BYTES,
            length: PAGE_BYTES,
            from_seq: meta.seq_min,
            to_seq: meta.seq_max,
            what: what.to_owned(),
        }))
    }

    /// The error for a read that failed.
    pub(super) fn failed(&self, piece: usize, page: u32, source: io::Error) -> Error {
        if is_gone(&source) {
            return self.damaged(piece, page, "index page that is missing");
        }
        read_failed(self.context.storage.describe(self.meta.pieces[piece].extent), source)
    }

    /// The extent of a piece.
    pub(super) fn extent(&self, piece: usize) -> Result<&Arc<dyn Extent>> {
        let open = &self.pieces[piece];
        if let Some(extent) = open.extent.get() {
            return Ok(extent);
        }
        let meta = &self.meta.pieces[piece];
        let extent = self
            .context
            .storage
            .open(meta.extent)
            .map_err(|source| self.failed(piece, meta.root_page, source))?;
        Ok(open.extent.get_or_init(|| extent))
    }

    /// Reads and verifies a page.
    pub(super) fn page(&self, piece: usize, page: u32) -> Result<Box<HeldPage>> {
        let meta = &self.meta.pieces[piece];
        let first = meta.offset / PAGE_BYTES;
        if !(first..first + u64::from(meta.pages)).contains(&u64::from(page)) {
            return Err(self.damaged(piece, page, "index page outside its piece"));
        }
        let extent = self.extent(piece)?;
        let bytes = self.context.pages.read(extent.as_ref(), page);
        let bytes = bytes.map_err(|source| self.failed(piece, page, source))?;
        Page(&bytes).verify(&self.identity(piece, page)).map_err(|what| self.damaged(piece, page, what))?;
        Ok(bytes)
    }

    /// The inner page at the top of a piece.
    fn top(&self, piece: usize) -> Result<&Arc<Node>> {
        let open = &self.pieces[piece];
        if let Some(top) = open.top.get() {
            return Ok(top);
        }
        let meta = &self.meta.pieces[piece];
        let top = if meta.height == 1 {
            let mut only = InnerBuilder::default();
            only.push(pack_key(&meta.first), meta.root_page);
            let (_, page) = only.finish(1, &self.identity(piece, meta.root_page));
            Node::new(Box::new(HeldPage::new(page)), 1).expect("an inner page was just made")
        } else {
            self.load_node(piece, meta.root_page, meta.height - 1, pack_key(&meta.first))?
        };
        Ok(open.top.get_or_init(|| Arc::new(top)))
    }

    /// Reads an inner page of this height that begins with `first`.
    fn load_node(&self, piece: usize, page: u32, height: u8, first: PackedKey) -> Result<Node> {
        let node = Node::new(self.page(piece, page)?, height)
            .ok_or_else(|| self.damaged(piece, page, "index page of another height than expected"))?;
        if node.inner().key(0) != first {
            return Err(self.damaged(piece, page, "index page that begins elsewhere"));
        }
        Ok(node)
    }

    /// The inner page below another.
    fn node<'r>(&'r self, piece: usize, parent: &'r Node, child: usize) -> Result<&'r Arc<Node>> {
        let below = parent.node(child);
        if let Some(node) = below.get() {
            return Ok(node);
        }
        let (page, first) = (parent.inner().child(child), parent.inner().key(child));
        let node = self.load_node(piece, page, parent.height() - 1, first)?;
        Ok(below.get_or_init(|| Arc::new(node)))
    }

    /// The leaf below an inner page.
    fn leaf<'r>(&'r self, piece: usize, parent: &'r Arc<Node>, child: usize) -> Result<LeafGuard<'r>> {
        let place = || (Arc::downgrade(parent), child);
        self.context.pages.leaf(parent.slot(child), place, || self.leaf_and_ahead(piece, parent, child))
    }

    /// The piece that holds the first entry at or after `key`, if any does.
    pub(super) fn piece_for(&self, key: PackedKey) -> Option<usize> {
        let piece = self.pieces.partition_point(|piece| piece.last < key);
        (piece < self.pieces.len()).then_some(piece)
    }

    /// Number of the leaf page in which a search for `key` begins, which is one of the piece of [`Run::piece_for`].
    pub(super) fn leaf_for(&self, piece: usize, key: PackedKey) -> Result<u32> {
        let mut node = self.top(piece)?;
        while node.height() > 1 {
            node = self.node(piece, node, node.child_for(key))?;
        }
        Ok(node.inner().child(node.child_for(key)))
    }
}

const INNER_MAX: usize = HEIGHT_MAX as usize - 1;

/// A walk over a run through the cache. The leaf that it stands in stays in memory for as long.
pub struct Cursor<'r> {
    run: &'r Run,
    piece: usize,
    /// Inner pages from the one above the leaf upwards, and the child taken in each.
    path: [Option<(&'r Arc<Node>, usize)>; INNER_MAX],
    leaf: Option<LeafGuard<'r>>,
    index: usize,
    len: usize,
    key: PackedKey,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nowhere yet.
    New,
    /// At the inner page above the leaf where a search for this key begins.
    Far(PackedKey),
    /// In that leaf; the search was not made yet.
    Near(PackedKey),
    /// At an entry, or at the end.
    Standing,
    /// An error left no place to go on from.
    Lost,
}

impl<'r> Cursor<'r> {
    fn new(run: &'r Run) -> Self {
        Self {
            run,
            piece: 0,
            path: [None; INNER_MAX],
            leaf: None,
            index: 0,
            len: 0,
            key: PackedKey::END,
            state: State::New,
        }
    }

    /// Goes to the first entry at or after `key` and answers it. Goes forward only: from where it stands at or past `key` it
    /// does not move.
    ///
    /// # Errors
    /// `Damaged`; `Io`; `Poisoned` after one of them, because the walk has lost its place.
    pub fn seek(&mut self, key: &Key) -> Result<Option<Entry>> {
        Walk::seek(self, pack_key(key))?;
        Ok(self.current())
    }

    /// Goes to the next entry and answers it; before the first `seek`, to the first.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        match self.state {
            State::New | State::Far(_) | State::Near(_) => Walk::seek(self, PackedKey::default())?,
            State::Standing | State::Lost => self.advance()?,
        }
        Ok(self.current())
    }

    /// Goes near where the first `seek`, for this key or a later one, will look: to the inner page above the leaf. With
    /// [`Cursor::take_leaf`] and the touches in between, many cursors side by side let the processor fetch their leaves
    /// together, where searches would wait for each line of each leaf in turn.
    pub(super) fn approach(&mut self, key: PackedKey) -> Result<()> {
        if let Some(piece) = self.run.piece_for(key) {
            self.piece = piece;
            self.enter_piece(key)?;
            self.state = State::Far(key);
        }
        Ok(())
    }

    /// Touches the slots among which the leaf will be searched; the answer has no meaning.
    pub(super) fn touch_slots(&self) -> u64 {
        match (self.state, self.path[0]) {
            (State::Far(key), Some((node, _))) => node.touch(key),
            _ => 0,
        }
    }

    /// Takes hold of the leaf that was approached.
    pub(super) fn take_leaf(&mut self) -> Result<()> {
        if let State::Far(key) = self.state {
            self.hold_leaf(key)?;
            self.state = State::Near(key);
        }
        Ok(())
    }

    /// Touches the header of the leaf that was approached; the answer has no meaning.
    pub(super) fn touch_header(&self) -> u8 {
        self.leaf.as_ref().map_or(0, |leaf| leaf[40])
    }

    /// Touches what a search in the leaf that was approached will read; the answer has no meaning.
    pub(super) fn touch_entries(&self) -> u64 {
        match (self.state, self.leaf()) {
            (State::Near(key), Some(leaf)) => leaf.touch(key),
            _ => 0,
        }
    }

    fn current(&self) -> Option<Entry> {
        (self.key != PackedKey::END).then(|| unpack(&self.entry()))
    }

    fn leaf(&self) -> Option<Leaf<'_>> {
        self.leaf.as_ref().and_then(|leaf| Page(leaf).leaf())
    }

    /// Stands at `index` of the leaf, or at the first entry of the next leaf when there is none.
    fn stand(&mut self, index: usize) -> Result<()> {
        if index < self.len {
            self.index = index;
            self.key = self.leaf().map_or(PackedKey::END, |leaf| leaf.key(index));
            self.state = State::Standing;
            return Ok(());
        }
        self.next_leaf()
    }

    fn end(&mut self) {
        (self.leaf, self.len, self.key, self.state) = (None, 0, PackedKey::END, State::Standing);
    }

    /// Takes the first leaf after this one.
    fn next_leaf(&mut self) -> Result<()> {
        let before = self.leaf().map(|leaf| leaf.key(leaf.len() - 1));
        self.go_to_next_leaf()?;
        if self.leaf.is_some() && before >= Some(self.key) {
            // Each of the pages is sound; the walk must not go backwards all the same.
            self.lose();
            let page = self.run.meta.pieces[self.piece].root_page;
            return Err(self.run.damaged(self.piece, page, "index pages out of order"));
        }
        Ok(())
    }

    fn go_to_next_leaf(&mut self) -> Result<()> {
        for level in 0..INNER_MAX {
            let Some((node, child)) = self.path[level] else { break };
            if child + 1 < node.inner().len() {
                self.path[level] = Some((node, child + 1));
                return self.descend(level, PackedKey::default());
            }
        }
        if self.piece + 1 == self.run.pieces.len() {
            self.end();
            return Ok(());
        }
        self.piece += 1;
        self.hold(PackedKey::default())?;
        self.search(PackedKey::default())
    }

    /// Takes hold of the leaf of the piece in which a search for `key` begins.
    fn hold(&mut self, key: PackedKey) -> Result<()> {
        self.enter_piece(key)?;
        self.hold_leaf(key)
    }

    /// Goes to the inner page above that leaf; the child is not chosen yet.
    fn enter_piece(&mut self, key: PackedKey) -> Result<()> {
        self.lose();
        self.path = [None; INNER_MAX];
        let top = self.run.top(self.piece)?;
        let level = usize::from(top.height()) - 1;
        self.path[level] = Some((top, if level > 0 { top.child_for(key) } else { 0 }));
        self.hold_node_below(level, key)
    }

    /// Goes to the inner page above the leaf from a level of the path where the child is chosen.
    fn hold_node_below(&mut self, level: usize, key: PackedKey) -> Result<()> {
        let Some((mut node, mut child)) = self.path[level] else { return Ok(()) };
        for level in (0..level).rev() {
            node = self.run.node(self.piece, node, child)?;
            child = if level > 0 { node.child_for(key) } else { 0 };
            self.path[level] = Some((node, child));
        }
        Ok(())
    }

    /// Chooses the leaf below the lowest inner page and takes hold of it.
    fn hold_leaf(&mut self, key: PackedKey) -> Result<()> {
        if let Some((node, child)) = &mut self.path[0] {
            *child = node.child_for(key);
            self.leaf = Some(self.run.leaf(self.piece, node, *child)?);
        }
        Ok(())
    }

    /// Takes hold of the leaf below a level of the path where the child is chosen.
    fn hold_below(&mut self, level: usize, key: PackedKey) -> Result<()> {
        self.lose();
        if level > 0 {
            self.hold_node_below(level, key)?;
            return self.hold_leaf(key);
        }
        if let Some((node, child)) = self.path[0] {
            self.leaf = Some(self.run.leaf(self.piece, node, child)?);
        }
        Ok(())
    }

    /// Lets go of everything: where an error leaves it.
    fn lose(&mut self) {
        (self.leaf, self.len, self.key, self.state) = (None, 0, PackedKey::END, State::Lost);
    }

    /// Goes from the path at a level to the first entry at or after `key`.
    fn descend(&mut self, level: usize, key: PackedKey) -> Result<()> {
        self.hold_below(level, key)?;
        self.search(key)
    }

    /// Goes to the first entry at or after `key` in the leaf that is held, or to the first after it.
    fn search(&mut self, key: PackedKey) -> Result<()> {
        let (len, index) = self.leaf().map_or((0, 0), |leaf| (leaf.len(), leaf.lower_bound(key)));
        self.len = len;
        self.stand(index)
    }

    /// The child of the inner page above the leaf that holds `key`, if it is one of them for certain.
    fn near(&self, key: PackedKey) -> Option<(&'r Arc<Node>, usize)> {
        let (node, child) = self.path[0]?;
        let inner = node.inner();
        // The last child may end before the key does.
        if child + 1 >= inner.len() || inner.key(inner.len() - 1) <= key {
            return None;
        }
        Some((node, if inner.key(child + 1) > key { child } else { inner.child_for(key) }))
    }
}

impl Walk for Cursor<'_> {
    fn seek(&mut self, key: PackedKey) -> Result<()> {
        match self.state {
            State::Lost => return Err(lost()),
            State::Standing if self.key >= key => return Ok(()),
            State::Near(approached) if approached == key => return self.search(key),
            State::Near(approached) if approached < key => {
                let leaf = self.leaf().filter(|leaf| leaf.key(leaf.len() - 1) >= key);
                if leaf.is_some() {
                    return self.search(key);
                }
            }
            State::Standing if self.leaf.is_some() => {
                if let Some(leaf) = self.leaf()
                    && leaf.key(self.len - 1) >= key
                {
                    let index = leaf.lower_bound_from(self.index, key);
                    return self.stand(index);
                }
                if self.run.pieces[self.piece].last >= key
                    && let Some(near) = self.near(key)
                {
                    self.path[0] = Some(near);
                    return self.descend(0, key);
                }
            }
            _ => {}
        }
        match self.run.piece_for(key) {
            Some(piece) => {
                self.piece = piece;
                self.hold(key)?;
                self.search(key)
            }
            None => {
                self.end();
                Ok(())
            }
        }
    }

    fn advance(&mut self) -> Result<()> {
        match self.state {
            State::Lost => Err(lost()),
            _ if self.key == PackedKey::END => Ok(()),
            _ => self.stand(self.index + 1),
        }
    }

    fn key(&self) -> PackedKey {
        self.key
    }

    fn entry(&self) -> PackedEntry {
        self.leaf().map(|leaf| leaf.entry(self.index)).unwrap_or_default()
    }
}

fn lost() -> Error {
    Error::Poisoned("a walk over an index run could not read a page".to_owned())
}
