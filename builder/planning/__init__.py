"""Turn an archive and a spec into a plan: inventory, persons, clinical rows, cohort, links, deal, shard plans."""
