"""What is studied: study files, studies in a storage, and whether what is stored can be trusted."""
