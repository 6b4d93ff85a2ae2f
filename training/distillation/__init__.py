"""Self-distillation: teachers, what they ask of the student, and the divergence between the two."""
