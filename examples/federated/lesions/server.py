"""What runs at the coordinator: it averages weights, and sees neither images nor the scores of single persons."""

import json
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from lesions import model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds with all sites of the joint report."""
    config = context.run_config
    report = json.loads(Path(str(config["report"])).read_text())
    versions = {f"version {site}": facts["version"] for site, facts in report["sites"].items()}
    count = len(versions)
    strategy = FedAvg(min_train_nodes=count, min_evaluate_nodes=count, min_available_nodes=count)
    asked = ConfigRecord({"steps": int(config["steps"]), **versions})
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([model.start()]),
        num_rounds=int(config["rounds"]),
        train_config=asked,
        evaluate_config=asked,
    )
    scores = [metrics["area"] for _, metrics in sorted(result.evaluate_metrics_clientapp.items())]
    print("area under the ROC curve on validation, all sites:", *(f"{score:.3f}" for score in scores))
