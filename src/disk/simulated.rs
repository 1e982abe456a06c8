//! A disk in memory that loses power, fails and lies when it is told to.
//!
//! Invariants
//! 1. It keeps what was written apart from what a sync has reached (`simulated/content.rs`).
//! 2. A name is durable after a sync of its directory only; a sync of the file that it stands for
//!    does nothing to it. A power cut keeps any of the changes of names that were not synced, each
//!    whole: a rename is there or not. Of one from a directory to another, either directory can be
//!    synced without the other; then there are two names, or none, until that is, too.
//! 3. Every operation has a number, from 1. What happens depends on the seed and on the operations,
//!    in their order, and on nothing else.
//! 4. Moments ([`SimulatedDisk::moments`]) and power cuts are disks of their own; what happens to
//!    one is not seen by another.

mod content;
mod random;

pub use content::Survival;
pub use random::Random;

use super::{Access, Disk, File, Filling, Lock, Sharing};
use content::FileContent;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// A disk in memory, for an engine to be opened on, that can lose power at any operation.
///
/// What was written and not synced survives a power cut in part or not at all, as the worst of disks
/// and file systems would have it. A clone is the same disk.
///
/// ```
/// use quipu::simulation::{SimulatedDisk, Survival};
/// use quipu::{Db, Durability, Event, Options, View};
///
/// let disk = SimulatedDisk::new(1);
/// let options = Options::new().durability(Durability::Sync).view(View::new("all"));
/// let db = options.clone().open_on(&disk, "shop")?;
/// db.record(&Event::new("sale"))?;
/// // Pull the plug. What was acknowledged must be there, whatever else is.
/// for seed in 0..10 {
///     let after = disk.power_cut(Survival::Some(seed));
///     let db = options.clone().open_on(&after, "shop")?;
///     assert_eq!(db.query("all")?.totals()?.count, 1);
/// }
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

/// One operation of a disk, as it is about to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Its number on this disk, from 1.
    pub number: u64,
    /// What it is.
    pub kind: OperationKind,
    /// The file or directory, as the engine calls it; where there are two, the new name.
    pub path: PathBuf,
    /// Where in a file; 0 where that means nothing.
    pub offset: u64,
    /// The number of bytes, or the new length; 0 where that means nothing.
    pub bytes: u64,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperationKind {
    /// Lists a directory.
    List,
    /// Asks whether there is such a name.
    Exists,
    /// Makes a directory.
    MakeDir,
    /// Makes the names in a directory durable.
    SyncDir,
    /// Makes an empty file.
    Create,
    /// Opens a file.
    Open,
    /// Gives a file another name.
    Rename,
    /// Takes a name away.
    Remove,
    /// Takes the lock of a file.
    Lock,
    /// Asks for a file's length.
    Len,
    /// Reads from a file.
    Read,
    /// Writes to a file.
    Write,
    /// Makes a file longer or shorter.
    SetLen,
    /// Makes a file of zeros, with room for each of them.
    Fill,
    /// Makes a file durable.
    Sync,
}

impl OperationKind {
    /// Whether a power cut before it can leave another disk than a power cut behind it.
    pub fn changes(self) -> bool {
        use OperationKind::{
            Create, Fill, Lock, MakeDir, Remove, Rename, SetLen, Sync, SyncDir, Write,
        };
        matches!(
            self,
            MakeDir | SyncDir | Create | Rename | Remove | Lock | Write | SetLen | Fill | Sync
        )
    }
}

/// What happens to an operation in place of what should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error. Of a write a part is done. What the sync of a file was to make
    /// durable is lost in part, and no later sync makes up for it, as on Linux; names, which have
    /// their file system's journal, stay to be synced.
    Error(io::ErrorKind),
    /// It says that it is done, and is not. (Not for what has a result.)
    Lie,
    /// A read or a write is done in part, and says so.
    Short,
    /// One bit of what is read is another one.
    FlippedBit,
    /// It fails, and so does every one behind it.
    PowerOff,
}

type Plan = Box<dyn FnMut(&Operation) -> Option<Fault> + Send>;

struct State {
    image: Image,
    random: Random,
    operations: u64,
    /// By node: how many readers share it; 0 where nobody else may have it.
    locked: BTreeMap<usize, usize>,
    plan: Option<Plan>,
    off: bool,
    capacity: Option<u64>,
    moments: Option<Vec<(Operation, Image)>>,
}

/// Everything there is, in parts that copies share.
#[derive(Clone)]
struct Image {
    /// By number; the first is the root. Nothing is ever taken out.
    nodes: Vec<Arc<Node>>,
    /// The name that each was made under or renamed to last.
    paths: Vec<Arc<Path>>,
    /// Renames from one directory to another so far.
    renames: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Directory(Directory),
    File(FileContent),
}

#[derive(Clone, Debug, Default)]
struct Directory {
    durable: BTreeMap<String, usize>,
    volatile: BTreeMap<String, usize>,
    /// What leads from the one to the other.
    pending: Vec<NameChange>,
}

/// Names, and what they stand for from then on; all of them or none.
#[derive(Clone, Debug)]
struct NameChange {
    names: Vec<(String, Option<usize>)>,
    /// The number of the rename from one directory to another that this is one half of. As long as
    /// neither of the two is synced a power cut keeps both halves or none.
    half_of: Option<u64>,
}

fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    for (name, node) in &change.names {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

impl Directory {
    fn change(&mut self, names: Vec<(String, Option<usize>)>, half_of: Option<u64>) {
        let change = NameChange { names, half_of };
        apply(&mut self.volatile, &change);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// `of_disk` is what survives of the disk, the same for all its directories.
    fn cut(&self, survival: Survival, of_disk: Survival) -> Self {
        let mut durable = self.durable.clone();
        let mut random = match survival {
            Survival::Some(seed) => Random::new(seed),
            Survival::None | Survival::All => Random::new(0),
        };
        for change in &self.pending {
            let survives = match (survival, of_disk, change.half_of) {
                (Survival::None, ..) => false,
                (Survival::All, ..) => true,
                (_, Survival::Some(seed), Some(rename)) => {
                    Random::new(seed ^ rename << 20).one_in(2)
                }
                (Survival::Some(_), ..) => random.one_in(2),
            };
            if survives {
                apply(&mut durable, change);
            }
        }
        Directory { volatile: durable.clone(), durable, pending: Vec::new() }
    }
}

const ROOT: usize = 0;
/// What files without a name are called.
const SCRATCH: &str = "scratch";

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Image {
    fn empty() -> Self {
        let root = Arc::new(Node::Directory(Directory::default()));
        Image { nodes: vec![root], paths: vec![Arc::from(Path::new("/"))], renames: 0 }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let name = name.to_str().ok_or_else(not_found)?;
                at = *self.directory(at)?.volatile.get(name).ok_or_else(not_found)?;
            }
        }
        Ok(at)
    }

    /// The directory that holds the name `path`, and the name in it.
    fn find_name(&self, path: &Path) -> io::Result<(usize, String)> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(not_found)?;
        let dir = self.find(super::parent(path))?;
        self.directory(dir)?;
        Ok((dir, name.to_owned()))
    }

    fn directory(&self, node: usize) -> io::Result<&Directory> {
        match &*self.nodes[node] {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn directory_mut(&mut self, node: usize) -> io::Result<&mut Directory> {
        match Arc::make_mut(&mut self.nodes[node]) {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&self, node: usize) -> io::Result<&FileContent> {
        match &*self.nodes[node] {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn file_mut(&mut self, node: usize) -> io::Result<&mut FileContent> {
        match Arc::make_mut(&mut self.nodes[node]) {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn make(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let (dir, name) = self.find_name(path)?;
        if self.directory(dir)?.volatile.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = self.nodes.len();
        self.nodes.push(Arc::new(node));
        self.paths.push(Arc::from(path));
        self.directory_mut(dir)?.change(vec![(name, Some(number))], None);
        Ok(number)
    }

    /// What the files that have a name take.
    fn allocated(&self) -> u64 {
        let names = self.nodes.iter().filter_map(|node| match &**node {
            Node::Directory(directory) => Some(directory.volatile.values()),
            Node::File(_) => None,
        });
        let named: BTreeSet<usize> = names.flatten().copied().collect();
        named.into_iter().filter_map(|node| self.file(node).ok()).map(FileContent::allocated).sum()
    }

    fn cut(&self, survival: Survival) -> Self {
        let of_disk = survival;
        let node = |(number, node): (usize, &Arc<Node>)| {
            let survival = match of_disk {
                Survival::Some(seed) => {
                    Survival::Some(Random::new(seed ^ (number as u64) << 40).number())
                }
                all_or_none => all_or_none,
            };
            Arc::new(match &**node {
                Node::Directory(directory) => Node::Directory(directory.cut(survival, of_disk)),
                Node::File(file) => Node::File(file.cut(survival)),
            })
        };
        Image {
            nodes: self.nodes.iter().enumerate().map(node).collect(),
            paths: self.paths.clone(),
            renames: self.renames,
        }
    }
}

impl SimulatedDisk {
    /// An empty disk. What it chooses, it chooses by `seed`.
    pub fn new(seed: u64) -> Self {
        SimulatedDisk::of(Image::empty(), seed)
    }

    fn of(image: Image, seed: u64) -> Self {
        SimulatedDisk(Arc::new(Mutex::new(State {
            image,
            random: Random::new(seed),
            operations: 0,
            locked: BTreeMap::new(),
            plan: None,
            off: false,
            capacity: None,
            moments: None,
        })))
    }

    /// The number of operations so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Asks `plan` about every operation from now on: `None` lets it be done. It is told all of
    /// them in their order, so it can also be used to write them down. It must not use the disk.
    pub fn plan(&self, plan: impl FnMut(&Operation) -> Option<Fault> + Send + 'static) {
        self.0.lock().plan = Some(Box::new(plan));
    }

    /// Every operation is done as it should from now on, if the power is not off.
    pub fn heal(&self) {
        self.0.lock().plan = None;
    }

    /// How many bytes files may take; `None`, as in the beginning, for any number.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// The bytes that files take.
    pub fn allocated(&self) -> u64 {
        self.0.lock().image.allocated()
    }

    /// The disk that a power cut at this moment leaves. This one goes on as it is.
    pub fn power_cut(&self, survival: Survival) -> SimulatedDisk {
        SimulatedDisk::of(self.0.lock().image.cut(survival), 0)
    }

    /// The disk as the death of every process leaves it: all that was written is there, synced or
    /// not, and nobody holds a lock. This one goes on as it is.
    pub fn kill(&self) -> SimulatedDisk {
        SimulatedDisk::of(self.0.lock().image.clone(), 0)
    }

    /// The files that have a name, each with what reading it gives now. This is no operation of the
    /// disk, and is told to nobody.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.0.lock();
        let mut files = BTreeMap::new();
        let mut dirs = vec![(PathBuf::new(), ROOT)];
        while let Some((path, node)) = dirs.pop() {
            match &*state.image.nodes[node] {
                Node::Directory(directory) => {
                    let entries = directory.volatile.iter();
                    dirs.extend(entries.map(|(name, node)| (path.join(name), *node)));
                }
                Node::File(file) => {
                    let mut bytes = vec![0; file.len() as usize];
                    file.read(0, &mut bytes);
                    files.insert(path, bytes);
                }
            }
        }
        files
    }

    /// What a hand at the disk does while nothing is open: the file has this content, or there is
    /// none of this name, and no power cut undoes it. This is no operation of the disk.
    ///
    /// # Panics
    /// If there is no directory to hold the name.
    pub fn replace(&self, path: impl AsRef<Path>, content: Option<&[u8]>) {
        let (path, image) = (path.as_ref(), &mut self.0.lock().image);
        let (dir, name) = image.find_name(path).expect("the directory is there");
        let node = content.map(|content| {
            let mut file = FileContent::default();
            file.write(0, content);
            file.sync();
            image.nodes.push(Arc::new(Node::File(file)));
            image.paths.push(Arc::from(path));
            image.nodes.len() - 1
        });
        let directory = image.directory_mut(dir).expect("it holds names");
        directory.change(vec![(name, node)], None);
        directory.sync();
    }

    /// Keeps the disk as it is before each operation that changes something, from now on, for
    /// [`moments`](SimulatedDisk::moments).
    pub fn keep_moments(&self) {
        self.0.lock().moments = Some(Vec::new());
    }

    /// The operations since [`keep_moments`](SimulatedDisk::keep_moments) that change something (of
    /// a file without a name nothing outlives its process), each with the disk as it was before, and no more are kept. A power cut of each of these
    /// disks, and of this one, is a power cut at every place there is: a write that is cut in the
    /// middle was not synced when the next operation begins.
    pub fn moments(&self) -> Vec<(Operation, SimulatedDisk)> {
        let moments = self.0.lock().moments.take().unwrap_or_default();
        let disk = |(operation, image)| (operation, SimulatedDisk::of(image, 0));
        moments.into_iter().map(disk).collect()
    }

    /// Begins an operation: what it is to do in place of what it should.
    fn begin(
        &self,
        kind: OperationKind,
        path: &Path,
        (offset, bytes): (u64, u64),
    ) -> io::Result<(parking_lot::MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.0.lock();
        if state.off {
            return Err(io::Error::other("the power is off"));
        }
        state.operations += 1;
        let number = state.operations;
        let operation = Operation { number, kind, path: path.to_owned(), offset, bytes };
        let fault = state.plan.as_mut().and_then(|plan| plan(&operation));
        let changes = kind.changes() && path != Path::new(SCRATCH);
        if let (true, State { image, moments: Some(moments), .. }) = (changes, &mut *state) {
            moments.push((operation, image.clone()));
        }
        match fault {
            Some(Fault::PowerOff) => {
                state.off = true;
                Err(io::Error::other("the power is off"))
            }
            // These leave something behind.
            Some(Fault::Error(error))
                if !matches!(kind, OperationKind::Write | OperationKind::Sync) =>
            {
                Err(error.into())
            }
            fault => Ok((state, fault)),
        }
    }
}

impl State {
    /// Whether `bytes` more find room.
    fn has_room(&self, bytes: u64) -> bool {
        bytes == 0 || self.capacity.is_none_or(|most| self.image.allocated() + bytes <= most)
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedDisk")
            .field("operations", &self.operations())
            .finish_non_exhaustive()
    }
}

const NOWHERE: (u64, u64) = (0, 0);

impl Disk for SimulatedDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let (state, _) = self.begin(OperationKind::List, dir, NOWHERE)?;
        let node = state.image.find(dir)?;
        Ok(state.image.directory(node)?.volatile.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let (state, _) = self.begin(OperationKind::Exists, path, NOWHERE)?;
        Ok(state.image.find(path).is_ok())
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, fault) = self.begin(OperationKind::MakeDir, dir, NOWHERE)?;
        match fault {
            Some(Fault::Lie) => Ok(()),
            _ => state.image.make(dir, Node::Directory(Directory::default())).map(|_| ()),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, fault) = self.begin(OperationKind::SyncDir, dir, NOWHERE)?;
        let node = state.image.find(dir)?;
        let directory = state.image.directory_mut(node)?;
        if fault != Some(Fault::Lie) {
            directory.sync();
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let (mut state, _) = self.begin(OperationKind::Create, path, NOWHERE)?;
        let node = state.image.make(path, Node::File(FileContent::default()))?;
        Ok(Box::new(self.opened(node)))
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Arc<dyn File>> {
        let (state, _) = self.begin(OperationKind::Open, path, NOWHERE)?;
        let node = state.image.find(path)?;
        state.image.file(node)?;
        Ok(Arc::new(self.opened(node)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, fault) = self.begin(OperationKind::Rename, to, NOWHERE)?;
        let node = state.image.find(from)?;
        let ((from_dir, from), (to_dir, to_name)) =
            (state.image.find_name(from)?, state.image.find_name(to)?);
        if fault == Some(Fault::Lie) {
            return Ok(());
        }
        state.image.paths[node] = Arc::from(to);
        let to = to_name;
        if from_dir == to_dir {
            let change = vec![(from, None), (to, Some(node))];
            state.image.directory_mut(from_dir)?.change(change, None);
        } else {
            state.image.renames += 1;
            let rename = Some(state.image.renames);
            state.image.directory_mut(to_dir)?.change(vec![(to, Some(node))], rename);
            state.image.directory_mut(from_dir)?.change(vec![(from, None)], rename);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut state, fault) = self.begin(OperationKind::Remove, path, NOWHERE)?;
        let node = state.image.find(path)?;
        state.image.file(node)?;
        let (dir, name) = state.image.find_name(path)?;
        if fault != Some(Fault::Lie) {
            state.image.directory_mut(dir)?.change(vec![(name, None)], None);
        }
        Ok(())
    }

    fn lock(&self, path: &Path, sharing: Sharing) -> io::Result<Option<Lock>> {
        let (mut state, _) = self.begin(OperationKind::Lock, path, NOWHERE)?;
        let node = match state.image.find(path) {
            Ok(node) => node,
            Err(missing) if sharing == Sharing::Readers => return Err(missing),
            Err(_) => state.image.make(path, Node::File(FileContent::default()))?,
        };
        match (state.locked.get_mut(&node), sharing) {
            (Some(0), _) | (Some(_), Sharing::Nobody) => return Ok(None),
            (Some(readers), Sharing::Readers) => *readers += 1,
            (None, Sharing::Readers) => _ = state.locked.insert(node, 1),
            (None, Sharing::Nobody) => _ = state.locked.insert(node, 0),
        }
        Ok(Some(Lock { _held: Arc::new(HeldLock { disk: self.clone(), node }) }))
    }

    fn scratch(&self) -> io::Result<Arc<dyn File>> {
        let path = Path::new(SCRATCH);
        let (mut state, _) = self.begin(OperationKind::Create, path, NOWHERE)?;
        let State { image, .. } = &mut *state;
        image.nodes.push(Arc::new(Node::File(FileContent::default())));
        image.paths.push(Arc::from(path));
        let node = image.nodes.len() - 1;
        Ok(Arc::new(self.opened(node)))
    }

    fn unique(&self) -> u128 {
        let random = &mut self.0.lock().random;
        u128::from(random.number()) << 64 | u128::from(random.number())
    }
}

/// Gives the lock back when it is dropped.
struct HeldLock {
    disk: SimulatedDisk,
    node: usize,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        match state.locked.get_mut(&self.node) {
            Some(readers) if *readers > 1 => *readers -= 1,
            _ => _ = state.locked.remove(&self.node),
        }
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    node: usize,
}

impl SimulatedDisk {
    fn opened(&self, node: usize) -> SimulatedFile {
        SimulatedFile { disk: self.clone(), node }
    }
}

impl SimulatedFile {
    fn begin(
        &self,
        kind: OperationKind,
        place: (u64, u64),
    ) -> io::Result<(parking_lot::MutexGuard<'_, State>, Option<Fault>)> {
        let path = self.disk.0.lock().image.paths[self.node].clone();
        self.disk.begin(kind, &path, place)
    }
}

impl File for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        let (state, _) = self.begin(OperationKind::Len, NOWHERE)?;
        Ok(state.image.file(self.node)?.len())
    }

    fn read_some(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let place = (offset, out.len() as u64);
        let (mut state, fault) = self.begin(OperationKind::Read, place)?;
        let State { image, random, .. } = &mut *state;
        let mut n = out.len();
        if fault == Some(Fault::Short) {
            n = n.min(1 + random.below(out.len() as u64) as usize);
        }
        let n = image.file(self.node)?.read(offset, &mut out[..n]);
        if fault == Some(Fault::FlippedBit) && n > 0 {
            out[random.below(n as u64) as usize] ^= 1 << random.below(8);
        }
        Ok(n)
    }

    fn write_some(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let place = (offset, bytes.len() as u64);
        let (mut state, fault) = self.begin(OperationKind::Write, place)?;
        let needed = state.image.file(self.node)?.room_for_write(offset, bytes.len() as u64);
        let fault = match fault {
            None if !state.has_room(needed) => Some(Fault::Error(io::ErrorKind::StorageFull)),
            fault => fault,
        };
        let State { image, random, .. } = &mut *state;
        let file = image.file_mut(self.node)?;
        match fault {
            Some(Fault::Lie) => Ok(bytes.len()),
            Some(Fault::Error(error)) => {
                // A full disk has room for nothing, other errors come anywhere.
                if error != io::ErrorKind::StorageFull {
                    let written = random.below(bytes.len() as u64 + 1) as usize;
                    file.write(offset, &bytes[..written]);
                }
                Err(error.into())
            }
            Some(Fault::Short) => {
                let n = 1 + random.below(bytes.len() as u64) as usize;
                file.write(offset, &bytes[..n]);
                Ok(n)
            }
            _ => {
                file.write(offset, bytes);
                Ok(bytes.len())
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut state, fault) = self.begin(OperationKind::SetLen, (0, len))?;
        if fault != Some(Fault::Lie) {
            state.image.file_mut(self.node)?.set_len(len);
        }
        Ok(())
    }

    fn fill(&self, len: u64, _: Filling) -> io::Result<()> {
        let (mut state, _) = self.begin(OperationKind::Fill, (0, len))?;
        if !state.has_room(len) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.image.file_mut(self.node)?.fill(len);
        drop(state);
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, fault) = self.begin(OperationKind::Sync, NOWHERE)?;
        let State { image, random, .. } = &mut *state;
        let file = image.file_mut(self.node)?;
        match fault {
            Some(Fault::Lie) => Ok(()),
            Some(Fault::Error(error)) => {
                file.fail_sync(random);
                Err(error.into())
            }
            _ => {
                file.sync();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
