DROP TABLE dialogs;
DROP TABLE clients;
