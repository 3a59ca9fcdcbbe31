"""What runs at the coordinator: it averages weights, and sees neither images nor the scores of single persons."""

import json
from collections.abc import Iterable
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from lesions import model

app = ServerApp()


class Everybody(FedAvg):
    """Averages only what all sites have answered, because a model without one of them is of another dataset."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the weights, or stop where a site could not or would not train."""
        answers = list(replies)
        if failed := sum(answer.has_error() for answer in answers):
            raise RuntimeError(f"{failed} of {len(answers)} sites did not train; their logs say why")
        return super().aggregate_train(server_round, answers)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds with all sites of the joint report."""
    config = context.run_config
    report = json.loads(Path(str(config["report"])).read_text())
    versions = {f"version {site}": facts["version"] for site, facts in report["sites"].items()}
    count = len(versions)
    strategy = Everybody(min_train_nodes=count, min_evaluate_nodes=count, min_available_nodes=count)
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
