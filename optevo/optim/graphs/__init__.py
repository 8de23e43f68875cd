"""Update equations as graphs: decays, equation, genes, program, optimizer, export."""
