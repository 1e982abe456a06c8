//! Serves until it is interrupted. With the directory of the store as argument, and the address if it shall
//! be another one; two keys are known, `free` and `pro`:
//!
//! ```sh
//! cargo run --manifest-path examples/axum/Cargo.toml -- /tmp/quipu-axum
//! for i in 1 2 3 4 5 6; do curl -i -H 'x-api-key: free' localhost:8080/time; done
//! ```

use quipu_axum::{Keys, Tier, options, service, set_policies};
use std::error::Error;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("which directory?")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let keys = [("free", Tier::Free), ("pro", Tier::Pro)];
    let keys = Keys::new(keys.map(|(key, tier)| (key.to_owned(), tier)).into());

    let db = options().open(dir)?;
    set_policies(&db)?;
    let service = service(&db, keys)?;
    Runtime::new()?.block_on(async {
        let listener = TcpListener::bind(address).await?;
        println!("http://{}/time", listener.local_addr()?);
        let interrupted = async { drop(tokio::signal::ctrl_c().await) };
        axum::serve(listener, service).with_graceful_shutdown(interrupted).await
    })?;
    db.close()?;
    Ok(())
}
