"""One dataset over several hospitals while no image leaves: signed documents, offers, joint plans, receipts."""
