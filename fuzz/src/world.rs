//! The services of a function, in memory: a view and a bucket that do what they are asked.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dsql_view::aws::service_error::ServiceError;
use dsql_view::batch::disposition::{Disposition, Superseded};
use dsql_view::batch::plan::Planner;
use dsql_view::bucket::{Objects, Page, StoredObject};
use dsql_view::deadline::Deadline;
use dsql_view::item::key::ItemKey;
use dsql_view::item::projection::{Circumstances, Origin, ViewItem};
use dsql_view::item::schema::TableSchema;
use dsql_view::record::delivery::{Data, Record};
use dsql_view::record::order::TimestampPlace;
use dsql_view::record::sequence::SequenceNumber;
use dsql_view::split_changes::Assembler;
use dsql_view::write::pace::Pace;
use dsql_view::write::view::{Put, Target, View};

use super::contract::{Contract, Expected};
use super::fragments::crc32c;
use super::record::{planner, tables};

/// The function's settings.
pub const CONTRACT: Contract = Contract { place: TimestampPlace::Auto, bucket: true, cluster: false };

/// A view, a bucket, and the function between them.
pub struct World {
    planner: Planner,
    objects: RefCell<BTreeMap<String, Vec<u8>>>,
    /// What the view shows, by key.
    pub view: RefCell<HashMap<ItemKey, ViewItem>>,
    /// All records that were delivered.
    pub delivered: Vec<String>,
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
}

impl Default for World {
    fn default() -> Self {
        Self {
            planner: planner(CONTRACT),
            objects: RefCell::default(),
            view: RefCell::default(),
            delivered: Vec::new(),
        }
    }
}

impl World {
    /// Delivers a batch; checks that each of its records ends once, and how it ends.
    pub fn deliver(&mut self, batch: &[String]) {
        let records: Vec<Record> = batch.iter().enumerate().map(delivered).collect();
        let tables = tables();
        let now = Circumstances { written_at: SystemTime::UNIX_EPOCH, origin: Origin::Stream, tables: &tables };
        let plan = self.planner.plan(&records, now);
        for change in plan.rows.into_iter().flatten() {
            plan.ledger.settle(change.id, self.write(change.item), SystemTime::UNIX_EPOCH);
        }
        let pace = Arc::new(Pace::new(NonZeroUsize::MIN));
        let views = [Target { name: "view".to_owned(), view: &*self, pace, attempts: Arc::default() }];
        let assembler = Assembler { planner: &self.planner, views: &views, objects: &*self, origin: Origin::Stream };
        let deadline = Deadline::after(Duration::from_secs(900));
        RUNTIME.with(|runtime| runtime.block_on(assembler.settle(&plan.ledger, &plan.parts, deadline)));
        for (entry, record) in plan.ledger.entries().iter().zip(batch) {
            let poison = matches!(CONTRACT.expects(record.as_bytes()), Expected::Poison);
            match entry.end() {
                Disposition::Reported(failure) => assert!(poison && failure.is_poison(), "{failure} is why {record}"),
                end => assert!(!poison, "{end:?} is the end of {record}"),
            }
        }
        self.delivered.extend_from_slice(batch);
    }

    fn write(&self, item: ViewItem) -> Disposition {
        let mut view = self.view.borrow_mut();
        if view.get(&item.key).is_some_and(|shown| shown.committed >= item.committed) {
            return Superseded::Told.into();
        }
        view.insert(item.key.clone(), item);
        Disposition::Applied
    }

    /// Checks that all objects are in the folders of their kinds.
    pub fn assert_folders(&self) {
        for key in self.objects.borrow().keys() {
            let folders: Vec<&str> = key.split('/').collect();
            let right = match folders[0] {
                "fragments" => folders.len() == 3,
                "quarantine" => folders.len() == 5,
                _ => false,
            };
            let plain = folders.iter().all(|folder| !folder.is_empty() && !folder.chars().all(|next| next == '.'));
            assert!(right && plain && key.len() <= 1024, "an object of the key {key}");
        }
    }

    /// The objects whose keys begin with this prefix.
    pub fn stored(&self, prefix: &str) -> Vec<StoredObject> {
        let objects = self.objects.borrow();
        let stored =
            objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix)).map(|(key, body)| {
                StoredObject { key: key.clone(), size: body.len() as u64, written_at: SystemTime::UNIX_EPOCH }
            });
        stored.collect()
    }
}

fn delivered((place, data): (usize, &String)) -> Record {
    Record {
        stream_arn: None,
        shard_id: Some("shardId-000000000001".into()),
        sequence_number: SequenceNumber::new(crc32c(data.as_bytes()).to_string()),
        partition_key: place.to_string(),
        approximate_arrival_timestamp: None,
        data: Data(data.clone().into_bytes()),
    }
}

impl View for &World {
    fn schema(&self) -> Option<Arc<TableSchema>> {
        tables()[0].clone()
    }

    async fn put(&self, item: ViewItem) -> Put {
        match self.write(item) {
            Disposition::Applied => Put::Applied,
            _ => Put::Superseded(Superseded::Told),
        }
    }

    async fn clear(&self, _: &ViewItem) -> Result<(), String> {
        Ok(())
    }
}

impl Objects for World {
    fn bucket(&self) -> &'static str {
        "bucket"
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), ServiceError> {
        self.objects.borrow_mut().insert(key.to_owned(), body);
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ServiceError> {
        Ok(self.objects.borrow().get(key).cloned())
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, ServiceError> {
        const PAGE: usize = 3;
        let mut objects: Vec<_> = self
            .stored(prefix)
            .into_iter()
            .filter(|object| after.is_none_or(|after| object.key.as_str() > after))
            .collect();
        let more = objects.len() > PAGE;
        objects.truncate(PAGE);
        Ok(Page { objects, more })
    }

    async fn retire(&self, _: &str) -> Result<(), ServiceError> {
        Ok(())
    }

    async fn is_retired(&self, _: &str) -> Result<bool, ServiceError> {
        Ok(true)
    }

    async fn delete(&self, key: &str) -> Result<(), ServiceError> {
        self.objects.borrow_mut().remove(key);
        Ok(())
    }
}
