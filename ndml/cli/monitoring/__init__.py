"""What `ndml monitor` is made of: what was read (samples), what changed (rates), what is shown (model, panels), where from (sources)."""
