//! A store in memory: for tests, and the model that others are compared with.

use super::{Changes, Row, Snapshot, Start, Storage, Table};
use crate::error::Result;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

type Rows = [Arc<BTreeMap<Vec<u8>, Vec<u8>>>; 4];

/// A store in memory, for tests. Clones share their rows, which are there as long as one of them is: a
/// directory can be closed and opened again with the same rows, but not by another process. That one
/// finds an empty store; then everything comes from the log, if the
/// [retention](crate::Retention) has kept all of it, and else the directory cannot be opened any more.
///
/// ```
/// # let root = tempfile::tempdir().unwrap();
/// # let dir = root.path().join("shop");
/// use quipu::storage::MemoryStorage;
/// use quipu::{Event, Options, View};
///
/// let rows = MemoryStorage::default();
/// let kept = rows.clone();
/// let options = Options::new().storage("memory", move |_dir| Ok(kept.clone()));
/// let db = options.clone().view(View::new("all")).open(&dir)?;
/// db.record(&Event::new("sale"))?;
/// db.close()?;
///
/// let db = options.open(&dir)?;
/// assert_eq!(db.query("all")?.totals()?.count, 1);
/// assert_eq!(db.statistics().replayed, 0); // it came from the rows
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage(Arc<RwLock<Rows>>);

struct MemorySnapshot(Rows);

impl Storage for MemoryStorage {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(MemorySnapshot(self.0.read().clone())))
    }

    fn commit(&self, changes: &Changes) -> Result<()> {
        let mut tables = self.0.write();
        for (rows, changes) in tables.iter_mut().zip(&changes.0) {
            // Copied where a snapshot has it: that one goes on seeing what it saw.
            let rows = Arc::make_mut(rows);
            for (key, value) in changes {
                match value {
                    Some(value) => rows.insert(key.clone(), value.clone()),
                    None => rows.remove(key),
                };
            }
        }
        Ok(())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl Snapshot for MemorySnapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0[table as usize].get(key).cloned())
    }

    fn range(
        &self,
        table: Table,
        from: Start<'_>,
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let Some(bounds) = from.bounds(to) else { return Ok(Vec::new()) };
        let rows = self.0[table as usize].range::<[u8], _>(bounds);
        Ok(rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
