//! A store in memory: the model that the real one is compared with.

use super::{Changes, Row, Snapshot, Start, Storage, Table};
use crate::disk::File;
use crate::error::Result;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

type Rows = [Arc<BTreeMap<Vec<u8>, Vec<u8>>>; 4];

#[derive(Debug, Default)]
pub(crate) struct MemoryStorage(RwLock<Rows>);

struct MemorySnapshot(Rows);

impl Storage for MemoryStorage {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(MemorySnapshot(self.0.read().clone())))
    }

    fn commit(&self, changes: &Changes) -> Result<()> {
        let mut tables = self.0.write();
        for (rows, changes) in tables.iter_mut().zip(&changes.0) {
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

    fn file(&self) -> Option<Arc<dyn File>> {
        None
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
