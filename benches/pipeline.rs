//! The pipeline without the network: from the bytes of a Lambda event to the requests for DynamoDB, per record.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dsql_view::batch::plan::Planner;
use dsql_view::item::projection::{Circumstances, Origin, Projector};
use dsql_view::record::delivery::Delivery;
use dsql_view::record::order::TimestampPlace;
use dsql_view::write::dynamodb::retry::Sender;
use dsql_view::write::dynamodb::{self, DynamoDbView, Rows};
use dsql_view::write::pace::Pace;
use dsql_view::write::view::View;
use dsql_view_support::cdc::Change;
use dsql_view_support::dynamodb::{LocalDynamoDb, sdk_config};
use dsql_view_support::kinesis;

/// One record, a usual batch, and the records of an event of 6 MB.
const BATCHES: [u64; 3] = [1, 100, 5000];

fn planner() -> Planner {
    Planner {
        source_tables: Arc::new("order_items(id)".parse().expect("a list of tables")),
        commit_timestamp: TimestampPlace::default(),
        source_cluster: None,
        projector: Projector {
            marks: Arc::default(),
            tombstone_ttl: Duration::from_secs(1_209_600),
            overflow_bucket: None,
            hash_key: None,
        },
    }
}

/// The event of this number of rows.
fn event(records: u64) -> Vec<u8> {
    let record = |id: u64| Change::order_item(id, 1_773_843_841_076_494_565 + id).record();
    kinesis::event_of((0..records).map(record)).to_string().into_bytes()
}

fn requests(planner: &Planner, view: &DynamoDbView, event: &[u8]) -> Vec<PutItemFluentBuilder> {
    let delivery: Delivery = serde_json::from_slice(event).expect("an event");
    let batch = delivery.into_batch().expect("a batch");
    let tables = [view.schema()];
    let now = Circumstances { written_at: SystemTime::UNIX_EPOCH, origin: Origin::Stream, tables: &tables };
    let plan = planner.plan(&batch.records, now);
    plan.rows.into_iter().flatten().map(|candidate| view.request(candidate.item)).collect()
}

fn pipeline(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let db = LocalDynamoDb::start();
    runtime.block_on(db.create_view("view"));
    let client = dynamodb::client::new(&sdk_config(&db.endpoint()));
    let sender = Sender { pace: Arc::new(Pace::new(NonZeroUsize::MIN)), attempts: Arc::default() };
    let view = DynamoDbView::new(client, sender, ("VIEW_TABLE", "view".to_owned()), Arc::default(), Rows::default());
    runtime.block_on(view.open()).expect("a view");
    let planner = planner();

    let mut group = criterion.benchmark_group("event bytes to requests");
    for records in BATCHES {
        let event = event(records);
        assert_eq!(requests(&planner, &view, &event).len() as u64, records);
        group.throughput(Throughput::Elements(records));
        group.bench_with_input(BenchmarkId::from_parameter(records), &event, |bencher, event| {
            bencher.iter(|| requests(&planner, &view, black_box(event)));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("of which parsing the event");
    for records in BATCHES {
        let event = event(records);
        group.throughput(Throughput::Elements(records));
        group.bench_with_input(BenchmarkId::from_parameter(records), &event, |bencher, event| {
            bencher.iter(|| serde_json::from_slice::<Delivery>(black_box(event)).expect("an event"));
        });
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
