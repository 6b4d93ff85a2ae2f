"""What everything that shows answers about medical images says first: the report, `chat`, a model's card."""

NOTICE = "Research software, not for clinical use."
