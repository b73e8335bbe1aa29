"""From what data sets write to forge's own rows: columns, speakers, tool calls, pairs, and templates of the job."""
