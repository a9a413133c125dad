"""From one machine's profiles to any model on any GPU: predicted times, memory and traffic, and how far to trust them.

The formulas are the closed forms (``methods``, ``analytic``, ``execution``); rates come from
``cdvft-bench calibrate`` or a table of datasheets; recorded profiles say what share of them a device reaches, and how
far predictions miss. Reads records, never measures. Everything that leaves this room is a prediction and says so.

- ``results``: what is answered, as dataclasses.
- ``evaluation.evaluate``, ``evaluate_stores``: predictions against recorded times; of stores by the rates beside them.
- ``published_times.compare_published``: against training times that others published.
- ``answering.answer.answer``: ranked choices for a model on a GPU.
"""
