-- A column called value, mixed letter case, quotes and spaces in texts, dates, a table without rows.
CREATE TABLE Customer (Customer_ID INTEGER PRIMARY KEY, Name VARCHAR(40), Country TEXT, Joined DATE);
CREATE TABLE Product (Product_ID INTEGER PRIMARY KEY, Name TEXT, Price REAL, Stock INTEGER, value INTEGER);
CREATE TABLE Orders (
    Order_ID INTEGER PRIMARY KEY,
    Customer_ID INTEGER,
    Product_ID INTEGER,
    Quantity INTEGER,
    Year INTEGER,
    FOREIGN KEY (Customer_ID) REFERENCES Customer (Customer_ID),
    FOREIGN KEY (Product_ID) REFERENCES Product (Product_ID)
);
CREATE TABLE Returned (Order_ID INTEGER REFERENCES Orders (Order_ID), Reason TEXT);
INSERT INTO Customer VALUES
    (1, 'O''Neil', 'USA', '2019-03-01'), (2, 'Zoë', 'France', '2020-01-15'), (3, 'de la Cruz', 'Spain', '2018-11-30'),
    (4, 'distinct', 'usa', '2021-07-07');
INSERT INTO Product VALUES
    (1, 'Pen', 1.5, 100, 1), (2, 'Lamp', 20.0, 3, 2), (3, 'Desk', 120.0, 0, 2), (4, 'Order by mail', 2.0, 7, 1), (5, 'lamp', 20, 5, 3);
INSERT INTO Orders VALUES
    (1, 1, 1, 10, 2019), (2, 1, 2, 1, 2020), (3, 2, 2, 2, 2020), (4, 3, 3, 1, 2020), (5, 3, 1, 10, 2021), (6, 3, 5, 1, 2021);
