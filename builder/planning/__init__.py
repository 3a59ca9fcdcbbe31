"""From an archive and a spec to a plan: inventory, persons, clinical rows, cohort, links, deal, shard plans."""
