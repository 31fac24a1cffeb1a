"""Claims of responses, put to vision-language models: a reward, and a judge without GPT-4."""
