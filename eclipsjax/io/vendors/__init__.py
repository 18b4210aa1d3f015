"""What each maker of microscopes writes beside the pixels: one module per maker, one table of units, one record.

A maker's module turns that maker's tags or side-car text, given as a mapping, into `(Facts, Frame)`; it opens no file.
"""
