"""The loop: what was seen (inventory), what is due (queue), what is done about it (reconcile)."""
